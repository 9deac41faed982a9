//! The layer that has the calls of a gRPC service paid for.
//!
//! Invariants: the service is called only while a payment for the call is reserved. A client is charged only for a call that the
//! service answered, before it sees the answer; of one that failed, or was cancelled, the channel is given back.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_TYPE};
use payment_channels::{GrpcCode, HeaderError, Payment, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use storage::channel::Amount;
use tonic::{body::Body, metadata::MetadataMap, server::NamedService};
use tower::{Layer, Service};

use crate::books::Books;

const STATUS: &str = "grpc-status";
const MESSAGE: &str = "grpc-message";

/// Has each call of a service paid for.
#[derive(Clone, Debug)]
pub(crate) struct PaidLayer {
    books: Arc<Books>,
    price: Amount,
}

impl PaidLayer {
    pub(crate) fn new(books: Arc<Books>, price: Amount) -> Self {
        Self { books, price }
    }
}

impl<S> Layer<S> for PaidLayer {
    type Service = Paid<S>;

    fn layer(&self, service: S) -> Paid<S> {
        Paid { service, layer: self.clone() }
    }
}

/// A service whose calls are paid for.
#[derive(Clone, Debug)]
pub(crate) struct Paid<S> {
    service: S,
    layer: PaidLayer,
}

impl<S: NamedService> NamedService for Paid<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Paid<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The one that was polled is ready; its clone need not be.
        let fresh = self.service.clone();
        let (service, layer) = (std::mem::replace(&mut self.service, fresh), self.layer.clone());
        Box::pin(async move { Ok(layer.call(service, request).await.unwrap_or_else(Refused::into_answer)) })
    }
}

impl PaidLayer {
    /// The service's answer; or why it was not called, or not paid.
    async fn call<S>(self, mut service: S, request: Request<Body>) -> Result<Response<Body>, Refused>
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        let payment = self.payment(request.headers())?;
        let guard = self.books.reserve_guarded(&payment, self.price).await?;
        let Ok(answer) = service.call(request).await;
        // A call that failed at once says so before its body. One that streams its answer and fails later was begun, and is paid for.
        if answer.headers().get(STATUS).is_some_and(|status| status != "0") {
            // If this fails the lease ends it; the client is not charged in any case.
            let _ = guard.release().await;
        } else {
            guard.commit().await?;
        }
        Ok(answer)
    }

    fn payment(&self, headers: &HeaderMap) -> Result<Payment, HeaderError> {
        let metadata = MetadataMap::from_headers(headers.clone());
        // One that is no base64 is no signature, and is refused as one of no bytes.
        let signatures = metadata.get_all_bin(header::CHANNEL_SIGNATURE).iter();
        let signatures: Vec<_> = signatures.map(|value| value.to_bytes().unwrap_or_default()).collect();
        let values = |name| -> Vec<&[u8]> {
            if name == header::CHANNEL_SIGNATURE {
                signatures.iter().map(|signature| &signature[..]).collect()
            } else {
                headers.get_all(name).iter().map(|value| value.as_bytes()).collect()
            }
        };
        Payment::from_headers(self.books.ledger().contract, values)
    }
}

/// Why a client does not get the service's answer.
#[derive(Debug)]
struct Refused {
    code: GrpcCode,
    message: String,
}

impl From<HeaderError> for Refused {
    fn from(error: HeaderError) -> Self {
        Self { code: error.grpc_code(), message: error.to_string() }
    }
}

impl From<payment_channels::Error> for Refused {
    fn from(error: payment_channels::Error) -> Self {
        Self { code: error.grpc_code(), message: error.to_string() }
    }
}

impl Refused {
    /// As an answer of gRPC. Made by hand, since the code for another nonce is none of gRPC's own.
    #[expect(clippy::expect_used, reason = "percent-encoded text is ASCII that can be seen")]
    fn into_answer(self) -> Response<Body> {
        let mut answer = Response::new(Body::empty());
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(STATUS, self.code.number().into());
        let message = utf8_percent_encode(&self.message, NON_ALPHANUMERIC).to_string();
        headers.insert(MESSAGE, message.parse().expect("percent-encoded text is the value of a header"));
        answer
    }
}
