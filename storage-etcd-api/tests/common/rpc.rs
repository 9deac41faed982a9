//! Calls of the protocol as they are, also those that no client library would make.

use bytes::{Buf, BufMut, Bytes};
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType, skip_field},
};
use storage_etcd_api::proto::etcdserverpb as pb;
use tonic::{
    Code, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

/// A connection to one server.
#[derive(Clone)]
pub(crate) struct Rpc {
    grpc: Grpc<Channel>,
    token: Option<String>,
}

impl Rpc {
    pub(crate) async fn connect(endpoint: &str) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{endpoint}")).unwrap();
        let channel = endpoint.connect().await.unwrap();
        Self { grpc: Grpc::new(channel).max_decoding_message_size(usize::MAX), token: None }
    }

    /// The same connection, with compressed requests.
    pub(crate) fn compressed(&self) -> Self {
        let grpc = self.grpc.clone().send_compressed(tonic::codec::CompressionEncoding::Gzip);
        Self { grpc, token: self.token.clone() }
    }

    /// The same connection, with this token.
    pub(crate) fn with_token(&self, token: Option<String>) -> Self {
        Self { grpc: self.grpc.clone(), token }
    }

    pub(crate) fn token(&self) -> Option<String> {
        self.token.clone()
    }

    fn request<Q>(&self, message: Q) -> tonic::Request<Q> {
        let mut request = tonic::Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("token", token.parse().unwrap());
        }
        request
    }

    pub(crate) async fn unary<Q, A>(&self, path: &'static str, request: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = self.grpc.clone();
        grpc.ready().await.map_err(|error| Status::new(Code::Unknown, error.to_string()))?;
        let codec = ProstCodec::<Q, A>::default();
        grpc.unary(self.request(request), PathAndQuery::from_static(path), codec).await.map(tonic::Response::into_inner)
    }

    /// A stream in both directions.
    pub(crate) async fn stream<Q, A>(
        &self,
        path: &'static str,
        requests: impl futures::Stream<Item = Q> + Send + 'static,
    ) -> Result<tonic::Streaming<A>, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let mut grpc = self.grpc.clone();
        grpc.ready().await.map_err(|error| Status::new(Code::Unknown, error.to_string()))?;
        let codec = ProstCodec::<Q, A>::default();
        let path = PathAndQuery::from_static(path);
        grpc.streaming(self.request(requests), path, codec).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, Status> {
        self.unary("/etcdserverpb.KV/Range", request).await
    }

    pub(crate) async fn put(&self, request: pb::PutRequest) -> Result<pb::PutResponse, Status> {
        self.unary("/etcdserverpb.KV/Put", request).await
    }

    pub(crate) async fn delete(&self, request: pb::DeleteRangeRequest) -> Result<pb::DeleteRangeResponse, Status> {
        self.unary("/etcdserverpb.KV/DeleteRange", request).await
    }

    pub(crate) async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, Status> {
        self.unary("/etcdserverpb.KV/Txn", request).await
    }

    pub(crate) async fn compact(&self, revision: i64) -> Result<pb::CompactionResponse, Status> {
        let request = pb::CompactionRequest { revision, physical: true };
        self.unary("/etcdserverpb.KV/Compact", request).await
    }

    pub(crate) async fn grant(&self, id: i64, ttl: i64) -> Result<pb::LeaseGrantResponse, Status> {
        self.unary("/etcdserverpb.Lease/LeaseGrant", pb::LeaseGrantRequest { ttl, id }).await
    }

    pub(crate) async fn revoke(&self, id: i64) -> Result<pb::LeaseRevokeResponse, Status> {
        self.unary("/etcdserverpb.Lease/LeaseRevoke", pb::LeaseRevokeRequest { id }).await
    }

    pub(crate) async fn time_to_live(&self, id: i64) -> Result<pb::LeaseTimeToLiveResponse, Status> {
        let request = pb::LeaseTimeToLiveRequest { id, keys: true };
        self.unary("/etcdserverpb.Lease/LeaseTimeToLive", request).await
    }

    pub(crate) async fn keep_alive(&self, id: i64) -> Result<pb::LeaseKeepAliveResponse, Status> {
        let requests = futures::stream::iter([pb::LeaseKeepAliveRequest { id }]);
        let mut answers = self.stream("/etcdserverpb.Lease/LeaseKeepAlive", requests).await?;
        Ok(answers.message().await?.expect("an answer"))
    }

    pub(crate) async fn leases(&self) -> Result<pb::LeaseLeasesResponse, Status> {
        self.unary("/etcdserverpb.Lease/LeaseLeases", pb::LeaseLeasesRequest {}).await
    }
}

/// Bytes in the place of a request, whatever they are.
#[derive(Debug, Default)]
pub(crate) struct Raw(pub(crate) Bytes);

impl Message for Raw {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        buffer.put_slice(&self.0);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        skip_field(wire_type, tag, buffer, context)
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}
