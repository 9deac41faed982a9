//! What backends on servers share: how a URL names the servers, and how a call goes to one of them.
//!
//! Nothing here knows a protocol or opens a socket: a backend says how one of its servers is got ready and what is sent to it.

mod failure;
mod pool;
mod url;

pub use self::{
    failure::{Failure, describe},
    pool::{Chosen, Effect, Pool, Server},
    url::{Dialect, MAX_ENDPOINTS, Secret, ServerUrl, TlsConfig, did_you_mean, parse_hosts, read_pem},
};
pub use crate::__read_from_urls as read_from_urls;
