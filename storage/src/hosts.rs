//! URLs with several hosts: `etcd://a:2379,b:2379/prefix`.
//!
//! People know this form from the tools of etcd and ZooKeeper; general parsers do not. All hosts but the first become
//! parameters `endpoint`, as the backends take them from a general parser.

use storage_core::servers::parse_hosts;
use url::{ParseError, Url};

use crate::registry::BACKENDS;

/// The parameter that names one more host, in every backend that can have several.
const PARAMETER: &str = "endpoint";

/// Parses a URL, which may have several hosts if its backend may.
pub(crate) fn parse(text: &str) -> Result<Url, ParseError> {
    let text = text.trim();
    match text.split_once("://") {
        Some((scheme, _)) if may_have_several(scheme) => parse_hosts(text),
        _ => Url::parse(text),
    }
}

/// Whether URLs of this scheme may have several hosts. So may those of a backend that was not built in, so that it is this
/// that people are told.
fn may_have_several(scheme: &str) -> bool {
    let backend =
        BACKENDS.iter().find(|backend| backend.schemes.iter().any(|known| known.eq_ignore_ascii_case(scheme)));
    backend.is_some_and(|backend| match &backend.opener {
        Some(opener) => opener.parameters.contains(&PARAMETER),
        None => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a backend takes several hosts depends on the build, but etcd does in each.
    #[test]
    fn further_hosts_become_parameters_and_all_else_stays() {
        for (text, expected) in [
            ("etcd://a:1,b:2", "etcd://a:1?endpoint=b%3A2"),
            ("etcd://a,b,c:3", "etcd://a?endpoint=b&endpoint=c%3A3"),
            (
                "etcds://u:p%40@a:1,[::1]:2/x,y/?ca=/c,d#e,f",
                "etcds://u:p%40@a:1/x,y/?ca=/c,d&endpoint=%5B%3A%3A1%5D%3A2#e,f",
            ),
            ("etcd://u,v:p,q@a:1/x", "etcd://u,v:p,q@a:1/x"),
            ("etcd://u:p@q@a:1,b:2", "etcd://u:p%40q@a:1?endpoint=b%3A2"),
            ("ETCD://a:1,b:2?endpoint=c:3", "etcd://a:1?endpoint=c:3&endpoint=b%3A2"),
            ("consul://a:1,b:2", "consul://a:1?endpoint=b%3A2"),
            ("zk://a:1,b:2/root", "zk://a:1/root?endpoint=b%3A2"),
            ("etcd://a:1,", "etcd://a:1?endpoint="),
        ] {
            assert_eq!(parse(text).unwrap().as_str(), expected, "{text}");
        }
    }

    #[test]
    fn urls_of_other_backends_are_left_alone() {
        for text in ["mem:a,b", "mem://a,b/c", "other://a,b?c", "embedded:/a,b?peer=1=c:1,2=d:2", "a,b"] {
            assert_eq!(parse(text), Url::parse(text), "{text}");
        }
        for text in ["mem://a:1,b:2", "other://a:1,b:2"] {
            assert_eq!(parse(text), Err(ParseError::InvalidPort), "{text}");
        }
    }
}
