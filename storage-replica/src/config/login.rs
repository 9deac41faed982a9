use std::{fmt, fs, path::PathBuf, sync::Arc};

use parking_lot::Mutex;
use storage_core::{Error, Result};

/// The user that a client of nodes is, where these ask for users. It is not shown.
///
/// Clones share the token that they have been given, so that not each of them logs in.
#[derive(Clone)]
pub struct Login {
    user: String,
    password: Password,
    token: Arc<Mutex<Option<String>>>,
}

#[derive(Clone, PartialEq, Eq)]
enum Password {
    Given(String),
    File(PathBuf),
}

impl Login {
    /// With this password.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self::with(user.into(), Password::Given(password.into()))
    }

    /// With the password in a file, without the end of its line. It is read when it is needed.
    pub fn from_file(user: impl Into<String>, file: impl Into<PathBuf>) -> Self {
        Self::with(user.into(), Password::File(file.into()))
    }

    fn with(user: String, password: Password) -> Self {
        Self { user, password, token: Arc::default() }
    }

    /// The name of the user.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The password.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a file that cannot be read.
    pub fn password(&self) -> Result<String> {
        match &self.password {
            Password::Given(password) => Ok(password.clone()),
            Password::File(file) => {
                let text = fs::read_to_string(file)
                    .map_err(|error| Error::invalid_argument(format!("cannot read {}: {error}", file.display())))?;
                let text = text.strip_suffix('\n').unwrap_or(&text);
                Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
            }
        }
    }

    pub(crate) fn token(&self) -> Option<String> {
        self.token.lock().clone()
    }

    pub(crate) fn set_token(&self, token: Option<String>) {
        *self.token.lock() = token;
    }
}

impl PartialEq for Login {
    fn eq(&self, other: &Self) -> bool {
        (&self.user, &self.password) == (&other.user, &other.password)
    }
}

impl Eq for Login {}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}
