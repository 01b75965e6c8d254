//! The method table: which message each method takes, and which policy rule decides it.

/// ttrpc service name of the agent.
pub const AGENT_SERVICE: &str = "grpc.AgentService";
/// ttrpc service name of the health checks.
pub const HEALTH_SERVICE: &str = "grpc.Health";

/// One method of the agent's ttrpc server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Method {
    /// Method name in the ttrpc request, such as `CreateContainer`.
    pub name: &'static str,
    /// Service name in the ttrpc request.
    pub service: &'static str,
    /// Name of the request message.
    pub request: &'static str,
    /// Name of the response message (`Empty` is google.protobuf.Empty).
    pub response: &'static str,
    /// The policy rule that decides it: the request message's name. `None` for the health service, which tells
    /// nothing about the pod and is not subject to the policy.
    pub rule: Option<&'static str>,
}

/// Every method, in the order of the definition.
pub const METHODS: &[Method] = include!(concat!(env!("OUT_DIR"), "/methods.rs"));

/// Looks a method up by service and name.
pub fn method(service: &str, name: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.service == service && method.name == name)
}

/// The policy rule names (request message names) of the agent service, each once, in the order of the definition.
pub fn request_names() -> impl Iterator<Item = &'static str> {
    METHODS.iter().enumerate().filter_map(|(index, method)| {
        let rule = method.rule?;
        let first = METHODS.iter().position(|other| other.rule == Some(rule));
        (first == Some(index)).then_some(rule)
    })
}
