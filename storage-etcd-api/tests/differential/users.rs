//! Random requests about a few users and roles, and as them.

use std::fmt::{self, Debug, Formatter};

use bytes::Bytes;
use fastrand::Rng;
use prost::Message;
use storage_etcd_api::proto::{
    authpb,
    etcdserverpb::{self as pb, request_op::Request as OpRequest},
};
use tonic::{Code, Status};

use super::{
    answers::{Answer, answer, watch},
    common::rpc::Rpc,
};

const NAMES: [&str; 5] = ["root", "alice", "bob", "carol", ""];
const ROLES: [&str; 5] = ["root", "reader", "writer", "other", ""];
const PASSWORDS: [&str; 3] = ["one", "two", ""];
const KEYS: [&str; 6] = ["a", "aa", "b", "b/1", "c", "d"];

/// The same connection to two servers.
pub(crate) struct Both {
    pub(crate) theirs: Rpc,
    pub(crate) ours: Rpc,
}

/// What was asked and answered.
pub(crate) struct Asked {
    pub(crate) kind: &'static str,
    pub(crate) by: Session,
    pub(crate) request: String,
    pub(crate) expected: Answer,
    pub(crate) found: Answer,
}

/// One who asks: who it has logged in as, and its tokens.
#[derive(Clone, Default)]
pub(crate) struct Session {
    user: &'static str,
    theirs: Option<String>,
    ours: Option<String>,
}

/// Makes requests.
pub(crate) struct Users {
    random: Rng,
    both: Both,
    sessions: Vec<Session>,
    /// Whether users are asked for, as answers told it.
    enabled: bool,
    /// What is done next, in this order, to come to a state in which something may be done at all.
    planned: Vec<Plan>,
}

#[derive(Clone, Copy, Debug)]
enum Plan {
    AddRoot,
    GrantRoot,
    Enable,
    LogIn(&'static str),
}

macro_rules! ask {
    ($self:ident, $kind:literal, $session:ident, $path:literal, $request:expr => $answer:ty) => {{
        let (kind, request) = ($kind, $request);
        let call = |rpc: Rpc| {
            let request = request.clone();
            async move { rpc.unary::<_, $answer>($path, request).await }
        };
        let (theirs, ours) = $self.both.by(&$session);
        let (expected, found) = tokio::join!(call(theirs), call(ours));
        let (expected, found) = (told(expected, |a| &mut a.header), told(found, |a| &mut a.header));
        Asked { kind, by: $session, request: format!("{request:?}"), expected, found }
    }};
}

impl Users {
    pub(crate) const KINDS: [&str; 23] = [
        "enable",
        "disable",
        "status",
        "login",
        "user added",
        "user deleted",
        "password",
        "role granted",
        "role revoked",
        "user looked at",
        "users listed",
        "role added",
        "role deleted",
        "permission granted",
        "permission revoked",
        "role looked at",
        "roles listed",
        "put",
        "range",
        "delete",
        "transaction",
        "lease",
        "watch",
    ];

    pub(crate) fn new(random: Rng, both: Both) -> Self {
        Self { random, both, sessions: Vec::new(), enabled: false, planned: Vec::new() }
    }

    pub(crate) async fn ask(&mut self) -> Asked {
        if self.planned.is_empty() && (!self.enabled && self.chance(10) || self.sessions.is_empty() && self.chance(30))
        {
            self.planned =
                vec![Plan::LogIn("alice"), Plan::LogIn("root"), Plan::Enable, Plan::GrantRoot, Plan::AddRoot];
        }
        let asked = match self.planned.pop() {
            Some(plan) => self.plan(plan).await,
            None => self.any().await,
        };
        let done = matches!(asked.expected, Answer::Done { .. });
        match asked.kind {
            "enable" if done => self.enabled = true,
            "disable" if done => self.enabled = false,
            _ => {}
        }
        // Now and then one goes on with a token that is good no more.
        if matches!(asked.expected, Answer::Refused(Code::Unauthenticated, _)) && self.chance(70) {
            self.sessions.retain(|session| session.theirs != asked.by.theirs);
        }
        asked
    }

    async fn plan(&mut self, plan: Plan) -> Asked {
        let by = self.session();
        match plan {
            Plan::AddRoot => {
                let request =
                    pb::AuthUserAddRequest { name: "root".into(), password: "one".into(), ..Default::default() };
                ask!(self, "user added", by, "/etcdserverpb.Auth/UserAdd", request => pb::AuthUserAddResponse)
            }
            Plan::GrantRoot => {
                let request = pb::AuthUserGrantRoleRequest { user: "root".into(), role: "root".into() };
                ask!(self, "role granted", by, "/etcdserverpb.Auth/UserGrantRole", request => pb::AuthUserGrantRoleResponse)
            }
            Plan::Enable => {
                ask!(self, "enable", by, "/etcdserverpb.Auth/AuthEnable", pb::AuthEnableRequest {} => pb::AuthEnableResponse)
            }
            Plan::LogIn(name) => self.log_in(name).await,
        }
    }

    async fn any(&mut self) -> Asked {
        let by = self.session();
        let (name, role) = (self.name(), self.role());
        match self.random.u32(..100) {
            0..2 => {
                ask!(self, "enable", by, "/etcdserverpb.Auth/AuthEnable", pb::AuthEnableRequest {} => pb::AuthEnableResponse)
            }
            2 => {
                ask!(self, "disable", by, "/etcdserverpb.Auth/AuthDisable", pb::AuthDisableRequest {} => pb::AuthDisableResponse)
            }
            3..6 => {
                ask!(self, "status", by, "/etcdserverpb.Auth/AuthStatus", pb::AuthStatusRequest {} => pb::AuthStatusResponse)
            }
            6..16 => self.log_in(name).await,
            16..22 => {
                let options = self.chance(40).then(|| authpb::UserAddOptions { no_password: self.random.bool() });
                let request = pb::AuthUserAddRequest {
                    name: name.into(),
                    password: self.password(),
                    options,
                    // Whatever a client says: the server makes its own.
                    hashed_password: if self.chance(10) { "b25l".into() } else { String::new() },
                };
                ask!(self, "user added", by, "/etcdserverpb.Auth/UserAdd", request => pb::AuthUserAddResponse)
            }
            22..24 => {
                let request = pb::AuthUserDeleteRequest { name: name.into() };
                ask!(self, "user deleted", by, "/etcdserverpb.Auth/UserDelete", request => pb::AuthUserDeleteResponse)
            }
            24..27 => {
                let hashed_password = ["", "b25l", "no base64!"][self.random.usize(..3)].to_owned();
                let request =
                    pb::AuthUserChangePasswordRequest { name: name.into(), password: self.password(), hashed_password };
                ask!(self, "password", by, "/etcdserverpb.Auth/UserChangePassword", request => pb::AuthUserChangePasswordResponse)
            }
            27..34 => {
                let request = pb::AuthUserGrantRoleRequest { user: name.into(), role: role.into() };
                ask!(self, "role granted", by, "/etcdserverpb.Auth/UserGrantRole", request => pb::AuthUserGrantRoleResponse)
            }
            34..38 => {
                // Mostly one that may well have it.
                let likely = ["alice", "bob"][self.random.usize(..2)];
                let (name, role) = if self.chance(70) { (likely, "reader") } else { (name, role) };
                let request = pb::AuthUserRevokeRoleRequest { name: name.into(), role: role.into() };
                ask!(self, "role revoked", by, "/etcdserverpb.Auth/UserRevokeRole", request => pb::AuthUserRevokeRoleResponse)
            }
            38..41 => {
                let request = pb::AuthUserGetRequest { name: name.into() };
                ask!(self, "user looked at", by, "/etcdserverpb.Auth/UserGet", request => pb::AuthUserGetResponse)
            }
            41..43 => {
                ask!(self, "users listed", by, "/etcdserverpb.Auth/UserList", pb::AuthUserListRequest {} => pb::AuthUserListResponse)
            }
            43..47 => {
                let request = pb::AuthRoleAddRequest { name: role.into() };
                ask!(self, "role added", by, "/etcdserverpb.Auth/RoleAdd", request => pb::AuthRoleAddResponse)
            }
            47..49 => {
                let request = pb::AuthRoleDeleteRequest { role: role.into() };
                ask!(self, "role deleted", by, "/etcdserverpb.Auth/RoleDelete", request => pb::AuthRoleDeleteResponse)
            }
            49..57 => {
                let (key, range_end) = self.permitted();
                let perm_type = self.random.i32(0..3);
                let perm = (!self.chance(5)).then_some(authpb::Permission { perm_type, key, range_end });
                let request = pb::AuthRoleGrantPermissionRequest { name: role.into(), perm };
                ask!(self, "permission granted", by, "/etcdserverpb.Auth/RoleGrantPermission", request => pb::AuthRoleGrantPermissionResponse)
            }
            57..62 => {
                let (key, range_end) = self.permitted();
                let request = pb::AuthRoleRevokePermissionRequest { role: role.into(), key, range_end };
                ask!(self, "permission revoked", by, "/etcdserverpb.Auth/RoleRevokePermission", request => pb::AuthRoleRevokePermissionResponse)
            }
            62..66 => {
                let request = pb::AuthRoleGetRequest { role: role.into() };
                ask!(self, "role looked at", by, "/etcdserverpb.Auth/RoleGet", request => pb::AuthRoleGetResponse)
            }
            66..68 => {
                ask!(self, "roles listed", by, "/etcdserverpb.Auth/RoleList", pb::AuthRoleListRequest {} => pb::AuthRoleListResponse)
            }
            68..76 => {
                let mut request = self.put();
                request.prev_kv = self.random.bool();
                ask!(self, "put", by, "/etcdserverpb.KV/Put", request => pb::PutResponse)
            }
            76..84 => {
                let request = pb::RangeRequest { serializable: self.random.bool(), ..self.range() };
                ask!(self, "range", by, "/etcdserverpb.KV/Range", request => pb::RangeResponse)
            }
            84..88 => {
                let request = self.delete();
                ask!(self, "delete", by, "/etcdserverpb.KV/DeleteRange", request => pb::DeleteRangeResponse)
            }
            88..95 => {
                let request = self.txn();
                ask!(self, "transaction", by, "/etcdserverpb.KV/Txn", request => pb::TxnResponse)
            }
            95..98 => self.lease(by).await,
            _ => self.watch(by).await,
        }
    }

    async fn log_in(&mut self, name: &'static str) -> Asked {
        let request = pb::AuthenticateRequest { name: name.into(), password: self.password() };
        let path = "/etcdserverpb.Auth/Authenticate";
        let (mut expected, mut found) = tokio::join!(
            self.both.theirs.unary::<_, pb::AuthenticateResponse>(path, request.clone()),
            self.both.ours.unary::<_, pb::AuthenticateResponse>(path, request.clone()),
        );
        // Each has tokens of its own.
        let token = |answer: &mut Result<pb::AuthenticateResponse, Status>| {
            answer.as_mut().ok().map(|answer| std::mem::take(&mut answer.token))
        };
        let (theirs, ours) = (token(&mut expected), token(&mut found));
        if theirs.is_some() && ours.is_some() {
            if self.sessions.len() >= 8 {
                self.sessions.remove(self.random.usize(..self.sessions.len()));
            }
            self.sessions.push(Session { user: name, theirs, ours });
        }
        let request = format!("{name:?} with {:?}", request.password);
        let (expected, found) = (told(expected, |a| &mut a.header), told(found, |a| &mut a.header));
        Asked { kind: "login", by: Session::default(), request, expected, found }
    }

    /// Grants and ends leases, attaches keys to them and looks at them, as one who has logged in: to nobody, etcd 3.5.16 grants them too.
    async fn lease(&mut self, by: Session) -> Asked {
        let by = if by.theirs.is_some() || !self.enabled { by } else { Session::garbage() };
        let id = self.random.i64(1..4);
        match self.random.u32(..5) {
            0 => {
                let request = pb::LeaseGrantRequest { ttl: 1000, id };
                ask!(self, "lease", by, "/etcdserverpb.Lease/LeaseGrant", request => pb::LeaseGrantResponse)
            }
            1 => {
                let request = pb::LeaseRevokeRequest { id };
                ask!(self, "lease", by, "/etcdserverpb.Lease/LeaseRevoke", request => pb::LeaseRevokeResponse)
            }
            2..4 => {
                let request = pb::PutRequest { lease: id, ..self.put() };
                ask!(self, "put", by, "/etcdserverpb.KV/Put", request => pb::PutResponse)
            }
            _ => {
                let alike = |life: Result<pb::LeaseTimeToLiveResponse, Status>| {
                    let life = life.map(|mut life| {
                        life.ttl = life.ttl.signum();
                        life.keys.sort();
                        life
                    });
                    told(life, |a| &mut a.header)
                };
                let (theirs, ours) = self.both.by(&by);
                let (expected, found) = tokio::join!(theirs.time_to_live(id), ours.time_to_live(id));
                let (expected, found) = (alike(expected), alike(found));
                Asked { kind: "lease", by, request: format!("keys of {id}"), expected, found }
            }
        }
    }

    async fn watch(&mut self, by: Session) -> Asked {
        let (key, range_end) = self.keys();
        // Without an end, etcd 3.5.16 asks for the first key alone.
        let range_end = if range_end == b"\0"[..] { Bytes::new() } else { range_end };
        let create = pb::WatchCreateRequest { key, range_end, start_revision: 1, ..Default::default() };
        let (theirs, ours) = self.both.by(&by);
        let (expected, found) = tokio::join!(watch(&theirs, create.clone(), 1), watch(&ours, create.clone(), 1));
        Asked { kind: "watch", by, request: format!("{create:?}"), expected, found }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.u32(..100) < percent
    }

    /// Mostly one that has logged in, and mostly as root; now and then nobody, and one with a token of nobody.
    fn session(&mut self) -> Session {
        let of_root = self.chance(50);
        let is_one = |session: &&Session| !of_root || session.user == "root";
        let some: Vec<_> = self.sessions.iter().filter(is_one).cloned().collect();
        match self.random.u32(..10) {
            0 => Session::default(),
            1 if self.chance(30) => Session::garbage(),
            // The latest is one that is good, more often than not.
            2..7 => some.last().map_or_else(Session::default, Session::clone),
            _ if some.is_empty() => Session::default(),
            _ => some[self.random.usize(..some.len())].clone(),
        }
    }

    fn name(&mut self) -> &'static str {
        // Seldom the empty one.
        let without = usize::from(!self.chance(25));
        NAMES[self.random.usize(..NAMES.len() - without)]
    }

    fn role(&mut self) -> &'static str {
        let without = usize::from(!self.chance(25));
        ROLES[self.random.usize(..ROLES.len() - without)]
    }

    fn password(&mut self) -> String {
        match self.random.u32(..20) {
            0 => "p".repeat(72),
            // Longer than bcrypt looks at.
            1 if !self.enabled => "p".repeat(73),
            2..14 => PASSWORDS[0].to_owned(),
            _ => PASSWORDS[self.random.usize(..PASSWORDS.len())].to_owned(),
        }
    }

    fn key(&mut self) -> Bytes {
        Bytes::from_static(KEYS[self.random.usize(..KEYS.len())].as_bytes())
    }

    fn range_end(&mut self) -> Bytes {
        match self.random.u32(..10) {
            0..5 => Bytes::new(),
            5 => Bytes::from_static(b"\0"),
            _ => self.key(),
        }
    }

    fn put(&mut self) -> pb::PutRequest {
        pb::PutRequest { key: self.key(), value: self.key(), ..Default::default() }
    }

    /// A range with keys. Of one without, etcd's answer depends on how the tree of its permissions is laid out.
    fn keys(&mut self) -> (Bytes, Bytes) {
        let (key, range_end) = (self.key(), self.range_end());
        let has_keys = range_end == b"\0"[..] || key < range_end;
        (key, if has_keys { range_end } else { Bytes::new() })
    }

    /// Mostly one of a few, so that what is granted is revoked too.
    fn permitted(&mut self) -> (Bytes, Bytes) {
        const SOME: [(&str, &str); 5] = [("a", ""), ("a", "b"), ("b", "c"), ("c", "\0"), ("d", "")];
        if self.chance(20) {
            return (self.key(), self.range_end());
        }
        let (key, range_end) = SOME[self.random.usize(..SOME.len())];
        (key.into(), range_end.into())
    }

    fn range(&mut self) -> pb::RangeRequest {
        let (key, range_end) = self.keys();
        pb::RangeRequest { key, range_end, ..Default::default() }
    }

    fn delete(&mut self) -> pb::DeleteRangeRequest {
        let (key, range_end) = self.keys();
        pb::DeleteRangeRequest { key, range_end, prev_kv: self.random.bool() }
    }

    fn txn(&mut self) -> pb::TxnRequest {
        let compare = (0..self.random.usize(..3)).map(|_| {
            let (key, range_end) = self.keys();
            let target_union = Some(pb::compare::TargetUnion::Version(0));
            pb::Compare { key, range_end, target_union, ..Default::default() }
        });
        let compare = compare.collect();
        pb::TxnRequest { compare, success: self.ops(), failure: self.ops() }
    }

    fn ops(&mut self) -> Vec<pb::RequestOp> {
        let reads = self.chance(30);
        let op = |users: &mut Self| match users.random.u32(..4) {
            0 if !reads => OpRequest::RequestPut(users.put()),
            1 if !reads => OpRequest::RequestDeleteRange(users.delete()),
            _ => OpRequest::RequestRange(users.range()),
        };
        (0..self.random.usize(..3)).map(|_| pb::RequestOp { request: Some(op(self)) }).collect()
    }
}

impl Session {
    /// With a token that nobody has given.
    fn garbage() -> Self {
        let token = Some("abcdefghijklmnop.1".to_owned());
        Self { user: "", theirs: token.clone(), ours: token }
    }
}

impl Debug for Session {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}{}", self.user, if self.theirs.is_some() { " with a token" } else { "" })
    }
}

impl Both {
    fn by(&self, session: &Session) -> (Rpc, Rpc) {
        (self.theirs.with_token(session.theirs.clone()), self.ours.with_token(session.ours.clone()))
    }
}

fn told<A: Debug + Message>(
    told: Result<A, Status>,
    header: impl Fn(&mut A) -> &mut Option<pb::ResponseHeader>,
) -> Answer {
    answer(told, header)
}
