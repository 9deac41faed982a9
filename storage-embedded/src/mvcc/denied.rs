/// Why a change of users and roles, or a request of a user, was refused. Nothing was changed.
///
/// The numbers are how it is written: in answers that are remembered, and between nodes. A number never gets a second meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[repr(u8)]
pub enum Denied {
    /// Users are asked for, and there is no user `root`.
    #[error("root user does not exist")]
    NoRootUser = 1,
    /// Users are asked for, and the user `root` has not the role `root`.
    #[error("root user does not have root role")]
    NoRootRole = 2,
    /// There is such a user already.
    #[error("user name already exists")]
    UserExists = 3,
    /// Nobody asks, or a user is to have no name.
    #[error("user name is empty")]
    UserEmpty = 4,
    /// There is no such user.
    #[error("user name not found")]
    UserNotFound = 5,
    /// There is such a role already.
    #[error("role name already exists")]
    RoleExists = 6,
    /// A role is to have no name.
    #[error("role name is empty")]
    RoleEmpty = 7,
    /// There is no such role.
    #[error("role name not found")]
    RoleNotFound = 8,
    /// Whoever asks may not.
    #[error("permission denied")]
    PermissionDenied = 9,
    /// The user has no such role.
    #[error("role is not granted to the user")]
    RoleNotGranted = 10,
    /// The role has no such permission.
    #[error("permission is not granted to the role")]
    PermissionNotGranted = 11,
    /// What keeps `root` in its place, and a permission without keys.
    #[error("invalid auth management")]
    InvalidManagement = 12,
    /// Users or roles have changed since it was found out who asks.
    #[error("revision of auth store is old")]
    OldRevision = 13,
    /// A password that is none.
    #[error("password was given for no password user")]
    NoPassword = 14,
    /// A limit of users, roles or permissions: see [`Auth`](crate::Auth).
    #[error("too many users, roles or permissions")]
    TooMany = 15,
    /// More keys of leases would have to be looked at than [`MAX_LEASE_CHECKS`](crate::MAX_LEASE_CHECKS).
    #[error("too many keys are attached to the leases of the request")]
    TooCostly = 16,
}

impl Denied {
    /// By its number.
    pub(crate) fn of(number: u8) -> Option<Self> {
        const ALL: [Denied; 16] = [
            Denied::NoRootUser,
            Denied::NoRootRole,
            Denied::UserExists,
            Denied::UserEmpty,
            Denied::UserNotFound,
            Denied::RoleExists,
            Denied::RoleEmpty,
            Denied::RoleNotFound,
            Denied::PermissionDenied,
            Denied::RoleNotGranted,
            Denied::PermissionNotGranted,
            Denied::InvalidManagement,
            Denied::OldRevision,
            Denied::NoPassword,
            Denied::TooMany,
            Denied::TooCostly,
        ];
        ALL.into_iter().find(|denied| *denied as u8 == number)
    }
}
