//! ttrpc: containerd's bytes become calls of the service, its results bytes.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use protobuf::Message;
use ttrpc::r#async::{MethodHandler, Service as Methods, TtrpcContext};
use ttrpc::{Request, Response};

use crate::service::Service;
use crate::trace::{self, Tracer};
use crate::{ShimError, counting};

/// containerd's two names for one service: 1.x and 2.x.
const SERVICES: [&str; 2] = ["containerd.task.v2.Task", "containerd.task.v3.Task"];
const METHODS: [&str; 17] = [
    "State",
    "Create",
    "Start",
    "Delete",
    "Pids",
    "Pause",
    "Resume",
    "Checkpoint",
    "Kill",
    "Exec",
    "ResizePty",
    "CloseIO",
    "Update",
    "Wait",
    "Stats",
    "Connect",
    "Shutdown",
];

struct Handler {
    method: &'static str,
    service: Arc<Service>,
    tracer: Arc<Tracer>,
}

#[async_trait]
impl MethodHandler for Handler {
    async fn handler(&self, context: TtrpcContext, request: Request) -> ttrpc::Result<Response> {
        let called = self.tracer.call(&context.metadata);
        let work = self.answer(&request.payload);
        Ok(trace::answer(self.method, called, work, failure).await)
    }
}

impl Handler {
    async fn answer(&self, payload: &[u8]) -> Response {
        let mut response = Response::new();
        match call(&self.service, self.method, payload).await {
            Ok(payload) => {
                response.payload = payload;
                response.set_status(ttrpc::get_status(ttrpc::Code::OK, ""));
            }
            Err(error) => {
                let told = error.told();
                tracing::error!(method = self.method, "{told}");
                counting::failed(&error);
                response.set_status(ttrpc::get_status(error.code(), told));
            }
        }
        response
    }
}

/// Why an answer is none.
fn failure(response: &Response) -> Option<String> {
    let status = response.status.as_ref().filter(|status| status.code() != ttrpc::Code::OK);
    status.map(|status| status.message.clone())
}

/// The services by name.
pub(crate) fn services(service: &Arc<Service>, tracer: Tracer) -> HashMap<String, Methods> {
    let tracer = Arc::new(tracer);
    let named = |name: &str| {
        let methods = METHODS.iter().map(|method| {
            let handler = Handler { method, service: service.clone(), tracer: tracer.clone() };
            ((*method).to_owned(), Box::new(handler) as Box<dyn MethodHandler + Send + Sync>)
        });
        (name.to_owned(), Methods { methods: methods.collect(), streams: HashMap::new() })
    };
    SERVICES.into_iter().map(named).collect()
}

async fn call(service: &Service, method: &str, payload: &[u8]) -> Result<Vec<u8>, ShimError> {
    match method {
        "State" => reply(&service.state(&read(payload)?)?),
        "Create" => reply(&service.create(read(payload)?).await?),
        "Start" => reply(&service.start(&read(payload)?).await?),
        "Delete" => reply(&service.delete(&read(payload)?).await?),
        "Pids" => reply(&service.pids(&read(payload)?)?),
        "Pause" => empty(service.pause(&read(payload)?).await),
        "Resume" => empty(service.resume(&read(payload)?).await),
        "Kill" => empty(service.kill(&read(payload)?).await),
        "Exec" => empty(service.exec(read(payload)?)),
        "ResizePty" => empty(service.resize(&read(payload)?).await),
        "CloseIO" => empty(service.close_io(&read(payload)?)),
        "Update" => empty(service.update(&read(payload)?).await),
        "Wait" => reply(&service.wait(&read(payload)?).await?),
        "Stats" => reply(&service.stats(&read(payload)?).await?),
        "Connect" => reply(&service.connect(&read(payload)?)),
        "Shutdown" => empty(service.shutdown(&read(payload)?)),
        _ => Err(ShimError::Unsupported { what: "a checkpoint" }),
    }
}

fn read<M: Message>(payload: &[u8]) -> Result<M, ShimError> {
    M::parse_from_bytes(payload).map_err(|error| ShimError::Request {
        field: "request",
        found: error.to_string(),
        expected: "a message of containerd's task service",
    })
}

fn reply<M: Message>(message: &M) -> Result<Vec<u8>, ShimError> {
    message.write_to_bytes().map_err(|error| ShimError::Request {
        field: "answer",
        found: error.to_string(),
        expected: "a message that can be written",
    })
}

/// `google.protobuf.Empty` has no bytes.
fn empty(done: Result<(), ShimError>) -> Result<Vec<u8>, ShimError> {
    done.map(|()| Vec::new())
}
