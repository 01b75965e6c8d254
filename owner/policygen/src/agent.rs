//! Which agent enforces a policy: this project's, or a stock Kata agent.

use ah_agent_api::Request;
use ah_pod::Pod;
use serde::{Deserialize, Serialize};

use crate::generate::GenerateError;
use crate::kata;

/// The agent in the guest. The rules are the same; a small file beside them says what each agent tells the rules.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Agent {
    /// This project's.
    #[default]
    Anchorhold,
    /// That of a Kata Containers 4 guest image, images pulled in the guest.
    Kata,
}

impl Agent {
    /// Its part of the rules.
    pub(crate) fn rules(self) -> &'static str {
        match self {
            Self::Anchorhold => include_str!("rules/anchorhold.rego"),
            Self::Kata => include_str!("rules/kata.rego"),
        }
    }

    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The pod as this agent's runtime sees it.
    pub(crate) fn pod(self, pod: &Pod) -> Result<Pod, GenerateError> {
        match self {
            Self::Anchorhold => Ok(pod.clone()),
            Self::Kata => kata::pod(pod),
        }
    }

    /// A request as this agent's runtime sends it.
    pub(crate) fn request(self, pod: &Pod, request: Request) -> Request {
        match (self, request) {
            (Self::Kata, Request::CreateSandbox(request)) => {
                Request::CreateSandbox(kata::create_sandbox(request))
            }
            (Self::Kata, Request::CreateContainer(request)) => {
                Request::CreateContainer(kata::create_container(pod, request))
            }
            (Self::Kata, Request::ExecProcess(request)) => {
                Request::ExecProcess(kata::exec_process(request))
            }
            (_, request) => request,
        }
    }
}
