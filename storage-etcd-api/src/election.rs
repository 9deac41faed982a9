//! The service Election: etcd's elections for clients that leave the waiting to the server.

use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};
use storage_embedded::mvcc::{Event, EventLimit};
use tonic::{Request, Response, Status};

use crate::{
    contest::{Caller, Contests},
    error,
    proto::{
        etcdserverpb::{PutRequest, ResponseHeader, request_op},
        mvccpb,
        v3electionpb::{
            CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
            ProclaimResponse, ResignRequest, ResignResponse, election_server::Election,
        },
    },
    translate,
};

/// What is taken from the history at once for one who observes: a leader proclaims little.
const AT_ONCE: EventLimit = EventLimit { events: 100, bytes: 512 << 10 };

/// Elections.
#[derive(Clone, Debug)]
pub(crate) struct ElectionService(pub(crate) Contests);

impl ElectionService {
    async fn proclaim_as(
        &self,
        caller: &Caller,
        leader: LeaderKey,
        value: bytes::Bytes,
    ) -> Result<Option<ResponseHeader>, Status> {
        let put = PutRequest { key: leader.key.clone(), value, lease: leader.lease, ..PutRequest::default() };
        let put = request_op::Request::RequestPut(put);
        let proclaimed = self.0.if_created_at(caller, &leader.key, leader.rev, put).await?;
        if proclaimed.succeeded { Ok(proclaimed.header) } else { Err(error::NOT_ELECTED.into()) }
    }
}

fn leader(leader: Option<LeaderKey>) -> Result<LeaderKey, Status> {
    leader.ok_or_else(|| error::NO_LEADER_KEY.into())
}

#[tonic::async_trait]
impl Election for ElectionService {
    /// Waits as long as its client does.
    async fn campaign(&self, request: Request<CampaignRequest>) -> Result<Response<CampaignResponse>, Status> {
        let (caller, CampaignRequest { name, lease, value }) = Caller::of(request);
        let mut contender = self.0.enter(&caller, &name, lease, value.clone()).await?;
        let (key, rev, lease) = (contender.key.clone(), contender.revision, contender.lease);
        let leader = LeaderKey { name: name.clone(), key, rev, lease };
        if contender.held.as_ref().is_some_and(|held| *held != value) {
            self.proclaim_as(&caller, leader.clone(), value).await?;
        }
        contender.turn(&caller, &name).await?;
        Ok(Response::new(CampaignResponse { header: contender.header.take(), leader: Some(leader) }))
    }

    async fn proclaim(&self, request: Request<ProclaimRequest>) -> Result<Response<ProclaimResponse>, Status> {
        let (caller, ProclaimRequest { leader, value }) = Caller::of(request);
        let header = self.proclaim_as(&caller, self::leader(leader)?, value).await?;
        Ok(Response::new(ProclaimResponse { header }))
    }

    async fn leader(&self, request: Request<LeaderRequest>) -> Result<Response<LeaderResponse>, Status> {
        let (caller, LeaderRequest { name }) = Caller::of(request);
        match self.0.first(&caller, &name, false).await? {
            (Some(kv), header) => Ok(Response::new(LeaderResponse { header, kv: Some(kv) })),
            (None, _) => Err(error::NONE_ELECTED.into()),
        }
    }

    type ObserveStream = BoxStream<'static, Result<LeaderResponse, Status>>;

    async fn observe(&self, request: Request<LeaderRequest>) -> Result<Response<Self::ObserveStream>, Status> {
        let (caller, LeaderRequest { name }) = Caller::of(request);
        let observer = Observer { contests: self.0.clone(), caller, name: name.to_vec(), next: 0, leader: None };
        let seen = stream::try_unfold(observer, |mut observer| async move {
            Ok::<_, Status>(Some((stream::iter(observer.see().await?.into_iter().map(Ok)), observer)))
        });
        Ok(Response::new(seen.try_flatten().boxed()))
    }

    async fn resign(&self, request: Request<ResignRequest>) -> Result<Response<ResignResponse>, Status> {
        let (caller, ResignRequest { leader }) = Caller::of(request);
        let leader = self::leader(leader)?;
        let header = self.0.leave(&caller, &leader.key, leader.rev).await?;
        Ok(Response::new(ResignResponse { header }))
    }
}

/// One who wants to be told of each leader, and of what it proclaims.
struct Observer {
    contests: Contests,
    caller: Caller,
    name: Vec<u8>,
    /// The revision whose events are wanted next.
    next: u64,
    /// The key of the leader.
    leader: Option<bytes::Bytes>,
}

impl Observer {
    /// What is new of the leader, once there is something.
    async fn see(&mut self) -> Result<Vec<LeaderResponse>, Status> {
        let mut applied = self.contests.0.mvcc.applied();
        loop {
            applied.borrow_and_update();
            let (seen, has_ended) = match self.leader.clone() {
                Some(key) => (self.proclaimed(&key)?, self.leader.is_none()),
                None => (self.elected().await?, false),
            };
            if !seen.is_empty() {
                return Ok(seen);
            }
            // One that has gone may have a successor already.
            if !has_ended {
                applied.changed().await.map_err(|_| Status::from(error::STOPPED))?;
            }
        }
    }

    /// The leader, if there is one. At first, the one of now.
    async fn elected(&mut self) -> Result<Vec<LeaderResponse>, Status> {
        let (kv, header) = self.contests.first(&self.caller, &self.name, self.next > 0).await?;
        self.next = header.as_ref().map_or(0, |header| header.revision.cast_unsigned()) + 1;
        self.leader = kv.as_ref().map(|kv| kv.key.clone());
        Ok(kv.map(|kv| LeaderResponse { header, kv: Some(kv) }).into_iter().collect())
    }

    /// What the leader has proclaimed, up to its end.
    fn proclaimed(&mut self, key: &bytes::Bytes) -> Result<Vec<LeaderResponse>, Status> {
        let mvcc = &self.contests.0.mvcc;
        let events = mvcc.events(self.next, |other| other == key, AT_ONCE).map_err(error::status)?;
        self.next = events.upto + 1;
        let mut seen = Vec::new();
        for event in events.events {
            if event.deleted {
                self.leader = None;
                break;
            }
            seen.push(LeaderResponse { header: self.contests.0.header(), kv: Some(proclaimed(event)) });
        }
        Ok(seen)
    }
}

fn proclaimed(event: Event) -> mvccpb::KeyValue {
    translate::event(event).kv.unwrap_or_default()
}
