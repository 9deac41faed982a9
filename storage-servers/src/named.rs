use crate::Servers;

/// The servers of this scheme, if this build has them.
pub fn named(scheme: &str) -> Option<Servers> {
    match scheme {
        #[cfg(feature = "etcd")]
        "etcd" => Some(crate::etcd()),
        #[cfg(feature = "consul")]
        "consul" => Some(crate::consul()),
        #[cfg(feature = "zk")]
        "zk" => Some(crate::zk()),
        _ => None,
    }
}
