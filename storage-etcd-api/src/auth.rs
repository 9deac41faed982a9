//! The service Auth: users, roles, and logging in.

use base64::{Engine, engine::general_purpose::STANDARD};
use prost::Message;
use storage_embedded::{Access, Auth as Users, AuthChange, PasswordHash, Permission, TokenSecret};
use tonic::{Request, Response, Status};

use crate::{
    check,
    context::Context,
    error::{self, denied},
    limits::REQUEST_TIMEOUT,
    proto::{authpb, etcdserverpb::*},
    who::Credentials,
};

/// Users and roles.
#[derive(Clone, Debug)]
pub(crate) struct AuthService(pub(crate) Context);

impl AuthService {
    /// The users as they are now, for whoever asks.
    async fn now<T>(&self, request: Request<T>) -> Result<(Users, T), Status> {
        let credentials = Credentials::of(&request);
        self.0.mvcc.barrier(REQUEST_TIMEOUT).await.map_err(error::status)?;
        Ok((self.0.auth(&credentials).await?, request.into_inner()))
    }

    /// The same for one who may change them. It is looked at once more where the change is applied.
    async fn change<T: Message>(&self, request: Request<T>) -> Result<(Change, T), Status> {
        check::request_size(request.get_ref())?;
        let (users, request) = self.now(request).await?;
        users.check_root().map_err(denied)?;
        Ok((Change { users, context: self.0.clone() }, request))
    }
}

/// The change of one who may.
struct Change {
    users: Users,
    context: Context,
}

impl Change {
    async fn of(self, change: AuthChange) -> Result<Option<ResponseHeader>, Status> {
        self.users.change(change, REQUEST_TIMEOUT).await.map_err(error::status)?;
        Ok(self.context.header())
    }
}

#[tonic::async_trait]
impl auth_server::Auth for AuthService {
    async fn auth_enable(&self, request: Request<AuthEnableRequest>) -> Result<Response<AuthEnableResponse>, Status> {
        let (change, _) = self.change(request).await?;
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| Status::internal(error.to_string()))?;
        let header = change.of(AuthChange::Enable { secret: TokenSecret(secret) }).await?;
        Ok(Response::new(AuthEnableResponse { header }))
    }

    async fn auth_disable(
        &self,
        request: Request<AuthDisableRequest>,
    ) -> Result<Response<AuthDisableResponse>, Status> {
        let (change, _) = self.change(request).await?;
        Ok(Response::new(AuthDisableResponse { header: change.of(AuthChange::Disable).await? }))
    }

    async fn auth_status(&self, request: Request<AuthStatusRequest>) -> Result<Response<AuthStatusResponse>, Status> {
        let (change, _) = self.change(request).await?;
        let status = change.users.status();
        let header = self.0.header();
        Ok(Response::new(AuthStatusResponse { header, enabled: status.enabled, auth_revision: status.revision }))
    }

    async fn authenticate(
        &self,
        request: Request<AuthenticateRequest>,
    ) -> Result<Response<AuthenticateResponse>, Status> {
        let AuthenticateRequest { name, password } = request.into_inner();
        self.0.mvcc.barrier(REQUEST_TIMEOUT).await.map_err(error::status)?;
        let users = self.0.node().auth();
        let revision = users.status().revision;
        let login = users.login(&name).ok_or(error::AUTH_NOT_ENABLED)?;
        if login.as_ref().is_some_and(|login| login.password.is_none()) {
            return Err(error::NO_PASSWORD_USER.into());
        }
        let kept = login.as_ref().and_then(|login| login.password.clone());
        let is_right = self.0.gate.passwords.is(kept, password).await?;
        // Of a password that was changed meanwhile the token is one that is not good.
        let login = login.filter(|_| is_right).ok_or(error::AUTH_FAILED)?;
        let token = self.0.gate.tokens.give(&name, revision, &login);
        let token = token.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(AuthenticateResponse { header: self.0.header(), token }))
    }

    async fn user_add(&self, request: Request<AuthUserAddRequest>) -> Result<Response<AuthUserAddResponse>, Status> {
        let (change, request) = self.change(request).await?;
        let password = match request.options {
            Some(authpb::UserAddOptions { no_password: true }) => None,
            _ => Some(self.0.gate.passwords.hash(request.password).await?),
        };
        let header = change.of(AuthChange::UserAdd { name: request.name, password }).await?;
        Ok(Response::new(AuthUserAddResponse { header }))
    }

    async fn user_get(&self, request: Request<AuthUserGetRequest>) -> Result<Response<AuthUserGetResponse>, Status> {
        let (users, request) = self.now(request).await?;
        let roles = users.user_roles(&request.name).map_err(denied)?;
        Ok(Response::new(AuthUserGetResponse { header: self.0.header(), roles }))
    }

    async fn user_list(&self, request: Request<AuthUserListRequest>) -> Result<Response<AuthUserListResponse>, Status> {
        let (users, _) = self.now(request).await?;
        let users = users.users().map_err(denied)?;
        Ok(Response::new(AuthUserListResponse { header: self.0.header(), users }))
    }

    async fn user_delete(
        &self,
        request: Request<AuthUserDeleteRequest>,
    ) -> Result<Response<AuthUserDeleteResponse>, Status> {
        let (change, AuthUserDeleteRequest { name }) = self.change(request).await?;
        Ok(Response::new(AuthUserDeleteResponse { header: change.of(AuthChange::UserDelete { name }).await? }))
    }

    async fn user_change_password(
        &self,
        request: Request<AuthUserChangePasswordRequest>,
    ) -> Result<Response<AuthUserChangePasswordResponse>, Status> {
        let (change, request) = self.change(request).await?;
        let AuthUserChangePasswordRequest { name, password, hashed_password } = request;
        // As in etcd: without a password, the hash that the client has made of one.
        let password = if password.is_empty() {
            STANDARD.decode(hashed_password).ok().map(|hash| PasswordHash(hash.into()))
        } else {
            Some(self.0.gate.passwords.hash(password).await?)
        };
        let header = change.of(AuthChange::UserPassword { name, password }).await?;
        Ok(Response::new(AuthUserChangePasswordResponse { header }))
    }

    async fn user_grant_role(
        &self,
        request: Request<AuthUserGrantRoleRequest>,
    ) -> Result<Response<AuthUserGrantRoleResponse>, Status> {
        let (change, AuthUserGrantRoleRequest { user, role }) = self.change(request).await?;
        let header = change.of(AuthChange::UserGrant { name: user, role }).await?;
        Ok(Response::new(AuthUserGrantRoleResponse { header }))
    }

    async fn user_revoke_role(
        &self,
        request: Request<AuthUserRevokeRoleRequest>,
    ) -> Result<Response<AuthUserRevokeRoleResponse>, Status> {
        let (change, AuthUserRevokeRoleRequest { name, role }) = self.change(request).await?;
        let header = change.of(AuthChange::UserRevoke { name, role }).await?;
        Ok(Response::new(AuthUserRevokeRoleResponse { header }))
    }

    async fn role_add(&self, request: Request<AuthRoleAddRequest>) -> Result<Response<AuthRoleAddResponse>, Status> {
        let (change, AuthRoleAddRequest { name }) = self.change(request).await?;
        Ok(Response::new(AuthRoleAddResponse { header: change.of(AuthChange::RoleAdd { name }).await? }))
    }

    async fn role_get(&self, request: Request<AuthRoleGetRequest>) -> Result<Response<AuthRoleGetResponse>, Status> {
        let (users, AuthRoleGetRequest { role }) = self.now(request).await?;
        let perm = users.permissions(&role).map_err(denied)?.into_iter().map(permission).collect();
        Ok(Response::new(AuthRoleGetResponse { header: self.0.header(), perm }))
    }

    async fn role_list(&self, request: Request<AuthRoleListRequest>) -> Result<Response<AuthRoleListResponse>, Status> {
        let (users, _) = self.now(request).await?;
        let roles = users.roles().map_err(denied)?;
        Ok(Response::new(AuthRoleListResponse { header: self.0.header(), roles }))
    }

    async fn role_delete(
        &self,
        request: Request<AuthRoleDeleteRequest>,
    ) -> Result<Response<AuthRoleDeleteResponse>, Status> {
        let (change, AuthRoleDeleteRequest { role }) = self.change(request).await?;
        Ok(Response::new(AuthRoleDeleteResponse { header: change.of(AuthChange::RoleDelete { name: role }).await? }))
    }

    async fn role_grant_permission(
        &self,
        request: Request<AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<AuthRoleGrantPermissionResponse>, Status> {
        let (change, AuthRoleGrantPermissionRequest { name, perm }) = self.change(request).await?;
        let authpb::Permission { perm_type, key, range_end } = perm.ok_or(error::PERMISSION_NOT_GIVEN)?;
        // etcd keeps a kind that is yet to come, and it allows nothing.
        let access = u8::try_from(perm_type).ok().and_then(Access::of).ok_or(error::INVALID_MANAGEMENT)?;
        let permission = Permission { key, range_end, access };
        let header = change.of(AuthChange::RoleGrant { role: name, permission }).await?;
        Ok(Response::new(AuthRoleGrantPermissionResponse { header }))
    }

    async fn role_revoke_permission(
        &self,
        request: Request<AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<AuthRoleRevokePermissionResponse>, Status> {
        let (change, AuthRoleRevokePermissionRequest { role, key, range_end }) = self.change(request).await?;
        let header = change.of(AuthChange::RoleRevoke { role, key, range_end }).await?;
        Ok(Response::new(AuthRoleRevokePermissionResponse { header }))
    }
}

fn permission(Permission { key, range_end, access }: Permission) -> authpb::Permission {
    authpb::Permission { perm_type: i32::from(access as u8), key, range_end }
}
