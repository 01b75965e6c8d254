//! Interface and routes of QEMU's user-mode network, as the Kata runtime would announce them.

use ah_agent_api::agent::{Routes, UpdateInterfaceRequest, UpdateRoutesRequest};
use ah_agent_api::types::{IPAddress, Interface, Route};

/// The guest's address (QEMU, `-netdev user`: defaults).
pub(crate) const GUEST_IP: &str = "10.0.2.15";
/// The host as the guest sees it.
pub(crate) const GATEWAY_IP: &str = "10.0.2.2";
/// QEMU's resolver.
pub(crate) const DNS_IP: &str = "10.0.2.3";

const DEVICE: &str = "eth0";

/// The one interface: `eth0`, 10.0.2.15/24, with this hardware address.
pub(crate) fn interface(hardware_address: &str) -> UpdateInterfaceRequest {
    let address = IPAddress { address: GUEST_IP.into(), mask: "24".into(), ..Default::default() };
    let interface = Interface {
        device: DEVICE.into(),
        name: DEVICE.into(),
        IPAddresses: vec![address],
        mtu: 1500,
        hwAddr: hardware_address.into(),
        ..Default::default()
    };
    UpdateInterfaceRequest { interface: Some(interface).into(), ..Default::default() }
}

/// The connected network, then the default route.
pub(crate) fn routes() -> UpdateRoutesRequest {
    let connected = Route {
        dest: "10.0.2.0/24".into(),
        device: DEVICE.into(),
        source: GUEST_IP.into(),
        scope: SCOPE_LINK,
        ..Default::default()
    };
    let default = Route { gateway: GATEWAY_IP.into(), device: DEVICE.into(), ..Default::default() };
    let routes = Routes { Routes: vec![connected, default], ..Default::default() };
    UpdateRoutesRequest { routes: Some(routes).into(), ..Default::default() }
}

/// `RT_SCOPE_LINK` (rtnetlink(7)).
const SCOPE_LINK: u32 = 253;
