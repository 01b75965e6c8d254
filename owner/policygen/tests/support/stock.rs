//! A stock Kata agent, as far as it decides: the engine with its own limits, the convention's data document, JSON patches.

use ah_agent_api::Request;
use regorus::Engine;
use serde_json::{Value, json};

pub(crate) struct Stock {
    engine: Engine,
    data: Value,
}

impl Stock {
    /// The limits are the engine's own: 1,024 columns, 1 MiB, 20,000 lines.
    pub(crate) fn new(policy: &str) -> Self {
        let mut engine = Engine::new();
        engine.set_rego_v0(true);
        engine.set_strict_builtin_errors(false);
        engine.set_gather_prints(true);
        engine.add_policy("policy.rego".to_owned(), policy.to_owned()).unwrap();
        Self { engine, data: json!({ "pstate": {} }) }
    }

    /// Evaluates the rule and, when it allows, applies its operations, as the convention says.
    pub(crate) fn allows(&mut self, rule: &str, input: &Value) -> bool {
        self.engine.clear_data();
        self.engine.add_data(self.data.clone().into()).unwrap();
        self.engine.set_input(input.clone().into());
        let value = self.engine.eval_rule(format!("data.agent_policy.{rule}"));
        let answer = match value {
            Ok(regorus::Value::Undefined) | Err(_) => return false,
            Ok(value) => serde_json::to_value(value).unwrap(),
        };
        let allowed = answer == json!(true) || answer.get("allowed") == Some(&json!(true));
        let ops = answer.get("ops").and_then(Value::as_array).cloned().unwrap_or_default();
        if allowed {
            ops.iter().for_each(|op| apply(&mut self.data, op));
        }
        allowed
    }

    /// The same without its effect on the state.
    pub(crate) fn would_allow(&mut self, rule: &str, input: &Value) -> bool {
        let before = self.data.clone();
        let allowed = self.allows(rule, input);
        self.data = before;
        allowed
    }
}

fn apply(data: &mut Value, op: &Value) {
    let path = op["path"].as_str().unwrap();
    let (parent, last) = path.rsplit_once('/').unwrap();
    let last = last.replace("~1", "/").replace("~0", "~");
    let parent = data.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match op["op"].as_str().unwrap() {
        "add" => drop(parent.insert(last, op["value"].clone())),
        "remove" => drop(parent.remove(&last).unwrap()),
        other => panic!("operation {other}"),
    }
}

/// A request as the runtime of a stock node with containerd 2 sends it, as the agent's policy input.
pub(crate) fn node_input(request: &Request) -> Value {
    let mut input = request.to_input().unwrap();
    match request {
        Request::CreateContainer(_) => node_container(&mut input),
        // The agent takes the contents out, and has no member for them.
        Request::CopyFile(_) => {
            let members = input.as_object_mut().unwrap();
            members.retain(|name, _| !name.starts_with("data_"));
        }
        _ => {}
    }
    input
}

fn node_container(input: &mut Value) {
    let kind = input["OCI"]["Annotations"]["io.kubernetes.cri.container-type"].clone();
    let metadata = json!({ "metadata": { "io.kubernetes.cri.container-type": kind } });
    input["storages"][0]["driver_options"] = json!([format!("image_guest_pull={metadata}")]);
    let spec = &mut input["OCI"];
    spec["Version"] = json!("1.2.1");
    spec["Process"]["ApparmorProfile"] = json!("cri-containerd.apparmor.d");
    let linux = &mut spec["Linux"];
    linux["Resources"]["Memory"] = json!({ "Limit": 1 << 30, "Swap": 0 });
    linux["Namespaces"].as_array_mut().unwrap().push(json!({ "Type": "cgroup", "Path": "" }));
    linux["MaskedPaths"].as_array_mut().unwrap().push(json!("/proc/interrupts"));
    if kind == "sandbox" {
        linux["Sysctl"]["net.ipv4.ip_unprivileged_port_start"] = json!("0");
        let annotations = spec["Annotations"].as_object_mut().unwrap();
        for (key, value) in [
            ("io.kubernetes.cri.sandbox-log-directory", "/var/log/pods/default_shop_1"),
            ("io.kubernetes.cri.sandbox-memory", "0"),
            ("nerdctl/network-namespace", "/var/run/netns/cni-1"),
            ("io.katacontainers.config.hypervisor.cc_init_data", "H4sI"),
        ] {
            annotations.insert(key.to_owned(), json!(value));
        }
    }
}
