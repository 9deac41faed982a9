//! The URL of a store, which may have a password or a token in it: nobody has to write it where everybody on the machine can read it.

use std::{env, path::Path};

use anyhow::anyhow;
use storage_replica::config::secret_in;

use crate::exit::Failure;

/// Where the URL of the store stands if the command line has none.
const VARIABLE: &str = "SNET_URL";

/// A URL as it is given: itself, `@FILE` or `env:NAME`.
pub(crate) fn store_url(text: &str) -> Result<String, String> {
    if let Some(file) = text.strip_prefix('@') {
        return secret_in(Path::new(file)).map_err(|error| error.to_string());
    }
    match text.strip_prefix("env:") {
        Some(name) => env::var(name).map_err(|_| format!("there is no variable {name} with an URL")),
        None => Ok(text.to_owned()),
    }
}

/// The URL that a file has, or else the environment.
pub(crate) fn from_file_or_environment(file: Option<&Path>) -> Result<String, Failure> {
    if let Some(file) = file {
        return secret_in(file).map_err(|error| Failure::Usage(anyhow!("{error}")));
    }
    env::var(VARIABLE).map_err(|_| {
        Failure::Usage(anyhow!(
            "no store is named: --store URL, --url-file FILE, --endpoints URLS, or the variable {VARIABLE}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_url_is_in_a_file_in_the_environment_or_itself() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("url");
        std::fs::write(&file, "etcd://app:s3cret@a:1\n").unwrap();
        assert_eq!(store_url("mem:").unwrap(), "mem:");
        assert_eq!(store_url(&format!("@{}", file.display())).unwrap(), "etcd://app:s3cret@a:1");
        assert_eq!(from_file_or_environment(Some(&file)).unwrap(), "etcd://app:s3cret@a:1");
        assert_eq!(store_url("env:PATH").unwrap(), env::var("PATH").unwrap());
        for missing in ["@/no/such/file", "env:SNET_NO_SUCH_VARIABLE"] {
            store_url(missing).unwrap_err();
        }
    }
}
