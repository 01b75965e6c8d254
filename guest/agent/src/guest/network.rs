//! The pod's network, which is the guest's own: interfaces, routes and neighbours over rtnetlink.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ah_agent_api::agent::{
    AddARPNeighborsRequest, Interfaces, Routes, UpdateInterfaceRequest, UpdateRoutesRequest,
};
use ah_agent_api::types::{IPAddress, IPFamily, Interface, Route};
use futures_util::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::neighbour::{NeighbourFlags, NeighbourState};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteScope};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};

use crate::failure::Failure;

/// Longest interface name, bytes (IFNAMSIZ less the zero).
const MAX_NAME_BYTES: usize = 15;
/// Most entries of one request.
const MAX_ENTRIES: usize = 1024;

type Netlink = (Handle, tokio::task::JoinHandle<()>);

fn connect() -> Result<Netlink, Failure> {
    let (connection, handle, _) =
        rtnetlink::new_connection().map_err(|e| Failure::effect("open rtnetlink", &e))?;
    Ok((handle, tokio::spawn(connection)))
}

fn failed(what: &'static str) -> impl Fn(rtnetlink::Error) -> Failure {
    move |e| Failure::effect(what, &e)
}

/// Brings `lo` up, which the kernel leaves down.
pub(super) async fn loopback_up() -> Result<(), Failure> {
    let (handle, task) = connect()?;
    let result = async {
        let lo = link(&handle, "lo").await?;
        set(&handle, LinkUnspec::new_with_index(lo.header.index).up().build()).await
    };
    let result = result.await;
    task.abort();
    result
}

/// Finds the interface by its hardware address, gives it its name, packet size and addresses, and brings it up.
pub(super) async fn update_interface(
    request: &UpdateInterfaceRequest,
) -> Result<Interface, Failure> {
    let wanted = request
        .interface
        .as_ref()
        .ok_or_else(|| Failure::refused("interface: found none, expected one"))?;
    check_name("interface.name", &wanted.name)?;
    let hardware = hardware_address(&wanted.hwAddr)?;
    let addresses: Vec<(IpAddr, u8)> =
        wanted.IPAddresses.iter().map(address).collect::<Result<_, _>>()?;
    let mtu = u32::try_from(wanted.mtu)
        .map_err(|_| Failure::refused(format!("interface.mtu: found {}", wanted.mtu)))?;
    let (handle, task) = connect()?;
    let result = configure(&handle, wanted, &hardware, mtu, &addresses).await;
    task.abort();
    result.map(|()| wanted.clone())
}

async fn configure(
    handle: &Handle,
    wanted: &Interface,
    hardware: &[u8],
    mtu: u32,
    addresses: &[(IpAddr, u8)],
) -> Result<(), Failure> {
    let links = links(handle).await?;
    let has = |l: &&LinkMessage| {
        l.attributes.iter().any(|a| matches!(a, LinkAttribute::Address(x) if x == hardware))
    };
    let found = links.iter().find(has).ok_or_else(|| Failure::NotFound {
        what: format!("interface with hardware address {}", wanted.hwAddr),
    })?;
    let index = found.header.index;
    if name(found) != wanted.name {
        let down = LinkUnspec::new_with_index(index).down().build();
        set(handle, down).await?;
        set(handle, LinkUnspec::new_with_index(index).name(wanted.name.clone()).build()).await?;
    }
    let mut message = LinkUnspec::new_with_index(index).up();
    if mtu != 0 {
        message = message.mtu(mtu);
    }
    // IFF_NOARP (netdevice(7)) is the one flag that the API carries.
    message =
        message.arp(!LinkFlags::from_bits_truncate(wanted.raw_flags).contains(LinkFlags::Noarp));
    set(handle, message.build()).await?;
    for (ip, prefix) in addresses {
        let mut request = handle.address().add(index, *ip, *prefix).replace();
        if ip.is_ipv6() {
            // The node has looked for the address's twin when the pod got it; for a second the guest could not use it.
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        request.execute().await.map_err(failed("add an address"))?;
    }
    Ok(())
}

/// Adds the routes or replaces those to the same destination, connected networks first.
pub(super) async fn update_routes(request: &UpdateRoutesRequest) -> Result<Routes, Failure> {
    let wanted = request
        .routes
        .as_ref()
        .ok_or_else(|| Failure::refused("routes: found none, expected some"))?;
    if wanted.Routes.len() > MAX_ENTRIES {
        return Err(Failure::refused("routes: found more than 1024"));
    }
    let (handle, task) = connect()?;
    let result = async {
        // A gateway must be reachable by a route that is there already.
        let (connected, via): (Vec<_>, Vec<_>) =
            wanted.Routes.iter().partition(|r| r.gateway.is_empty());
        for route in connected.into_iter().chain(via) {
            let device = link(&handle, &route.device).await?;
            let message = route_message(route, device.header.index)?;
            handle.route().add(message).replace().execute().await.map_err(failed("add a route"))?;
        }
        Ok(wanted.clone())
    };
    let result = result.await;
    task.abort();
    result
}

fn route_message(route: &Route, index: u32) -> Result<RouteMessage, Failure> {
    let refused = |field: &str, found: &str| {
        Failure::refused(format!("routes.{field}: found {found:?}, expected an address"))
    };
    if route.flags != 0 || route.mtu != 0 {
        return Err(Failure::refused("routes.flags, mtu: found a value, expected none"));
    }
    let ip = |field: &str, text: &str| -> Result<Option<IpAddr>, Failure> {
        match text {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| refused(field, text)),
        }
    };
    let gateway = ip("gateway", &route.gateway)?;
    let source = ip("source", &route.source)?;
    let destination = match route.dest.as_str() {
        "" | "default" => None,
        text => Some(prefix(text).ok_or_else(|| refused("dest", text))?),
    };
    let six = match destination.map(|(ip, _)| ip).or(gateway).or(source) {
        Some(ip) => ip.is_ipv6(),
        None => route.family.value() == IPFamily::v6 as i32,
    };
    let (any, len) = match six {
        true => (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
        false => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
    };
    let (to, length) = destination.unwrap_or((any, len));
    let mixed = || Failure::refused("routes: addresses of both families in one route");
    let mut builder = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(to, length)
        .map_err(|_| refused("dest", &route.dest))?
        .output_interface(index);
    let scope = u8::try_from(route.scope)
        .map_err(|_| Failure::refused(format!("routes.scope: found {}", route.scope)))?;
    builder = builder.scope(RouteScope::from(scope));
    if let Some(gateway) = gateway {
        builder = builder.gateway(gateway).map_err(|_| mixed())?;
    }
    if let Some(source) = source {
        builder = builder.pref_source(source).map_err(|_| mixed())?;
    }
    Ok(builder.build())
}

/// Every interface with its addresses.
pub(super) async fn list_interfaces() -> Result<Interfaces, Failure> {
    let (handle, task) = connect()?;
    let result = async {
        let links = links(&handle).await?;
        let addresses: Vec<AddressMessage> = handle
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(failed("list addresses"))?;
        let list = links.iter().map(|l| interface(l, &addresses)).collect();
        Ok(Interfaces { Interfaces: list, ..Default::default() })
    };
    let result = result.await;
    task.abort();
    result
}

fn interface(link: &LinkMessage, addresses: &[AddressMessage]) -> Interface {
    let mut found = Interface { device: name(link), name: name(link), ..Default::default() };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => found.mtu = u64::from(*mtu),
            LinkAttribute::Address(bytes) => {
                let hex: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
                found.hwAddr = hex.join(":");
            }
            _ => {}
        }
    }
    found.raw_flags = link.header.flags.bits();
    for message in addresses.iter().filter(|a| a.header.index == link.header.index) {
        let ip = message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        });
        if let Some(ip) = ip {
            found.IPAddresses.push(IPAddress {
                family: family(ip.is_ipv6()).into(),
                address: ip.to_string(),
                mask: message.header.prefix_len.to_string(),
                ..Default::default()
            });
        }
    }
    found
}

/// The routes of the main table, as `ip route` lists them.
pub(super) async fn list_routes() -> Result<Routes, Failure> {
    let (handle, task) = connect()?;
    let result = async {
        let links = links(&handle).await?;
        let mut routes = Vec::new();
        let four = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let six = RouteMessageBuilder::<Ipv6Addr>::new().build();
        for message in [four, six] {
            let some: Vec<RouteMessage> = handle
                .route()
                .get(message)
                .execute()
                .try_collect()
                .await
                .map_err(failed("list routes"))?;
            routes.extend(
                some.iter().filter(|r| r.header.table == MAIN_TABLE).map(|r| route(r, &links)),
            );
        }
        Ok(Routes { Routes: routes, ..Default::default() })
    };
    let result = result.await;
    task.abort();
    result
}

/// RT_TABLE_MAIN, rtnetlink(7).
const MAIN_TABLE: u8 = 254;

fn route(message: &RouteMessage, links: &[LinkMessage]) -> Route {
    let six = message.header.address_family == AddressFamily::Inet6;
    let mut found = Route {
        scope: u32::from(u8::from(message.header.scope)),
        family: family(six).into(),
        ..Default::default()
    };
    let text = |a: &RouteAddress| match a {
        RouteAddress::Inet(ip) => ip.to_string(),
        RouteAddress::Inet6(ip) => ip.to_string(),
        _ => String::new(),
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(a) => {
                found.dest = format!("{}/{}", text(a), message.header.destination_prefix_length);
            }
            RouteAttribute::Gateway(a) => found.gateway = text(a),
            RouteAttribute::PrefSource(a) => found.source = text(a),
            RouteAttribute::Oif(index) => {
                let device = links.iter().find(|l| l.header.index == *index);
                found.device = device.map(name).unwrap_or_default();
            }
            _ => {}
        }
    }
    found
}

/// Adds or replaces hardware addresses of neighbours.
pub(super) async fn add_neighbors(request: &AddARPNeighborsRequest) -> Result<(), Failure> {
    let list = request.neighbors.as_ref().map(|n| n.ARPNeighbors.as_slice()).unwrap_or_default();
    if list.len() > MAX_ENTRIES {
        return Err(Failure::refused("neighbors: found more than 1024"));
    }
    let (handle, task) = connect()?;
    let result = async {
        for neighbor in list {
            let to = neighbor
                .toIPAddress
                .as_ref()
                .and_then(|a| a.address.parse::<IpAddr>().ok())
                .ok_or_else(|| {
                Failure::refused("neighbors.toIPAddress: expected an address")
            })?;
            let device = link(&handle, &neighbor.device).await?;
            let mut add = handle.neighbours().add(device.header.index, to).replace();
            if !neighbor.lladdr.is_empty() {
                add = add.link_local_address(&hardware_address(&neighbor.lladdr)?);
            }
            let state = u16::try_from(neighbor.state).map_err(|_| {
                Failure::refused(format!("neighbors.state: found {}", neighbor.state))
            })?;
            let flags = u8::try_from(neighbor.flags).map_err(|_| {
                Failure::refused(format!("neighbors.flags: found {}", neighbor.flags))
            })?;
            add.state(NeighbourState::from(state))
                .flags(NeighbourFlags::from_bits_retain(flags))
                .execute()
                .await
                .map_err(failed("add a neighbour"))?;
        }
        Ok(())
    };
    let result = result.await;
    task.abort();
    result
}

async fn links(handle: &Handle) -> Result<Vec<LinkMessage>, Failure> {
    handle.link().get().execute().try_collect().await.map_err(failed("list interfaces"))
}

async fn link(handle: &Handle, wanted: &str) -> Result<LinkMessage, Failure> {
    links(handle)
        .await?
        .into_iter()
        .find(|l| name(l) == wanted)
        .ok_or_else(|| Failure::NotFound { what: format!("interface {wanted:?}") })
}

async fn set(handle: &Handle, message: LinkMessage) -> Result<(), Failure> {
    handle.link().set(message).execute().await.map_err(failed("set an interface"))
}

fn name(link: &LinkMessage) -> String {
    link.attributes
        .iter()
        .find_map(|a| match a {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        })
        .unwrap_or_default()
}

fn family(six: bool) -> IPFamily {
    if six { IPFamily::v6 } else { IPFamily::v4 }
}

fn check_name(field: &str, name: &str) -> Result<(), Failure> {
    let fine = (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && name != "."
        && name != ".."
        && name != "lo";
    if fine {
        Ok(())
    } else {
        Err(Failure::refused(format!(
            "{field}: found {name:?}, expected an interface name other than lo"
        )))
    }
}

/// `aa:bb:cc:dd:ee:ff`.
fn hardware_address(text: &str) -> Result<Vec<u8>, Failure> {
    let bytes: Option<Vec<u8>> = text
        .split(':')
        .map(|part| {
            let digits = part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
            digits.then(|| u8::from_str_radix(part, 16).ok()).flatten()
        })
        .collect();
    bytes.filter(|b| b.len() == 6).ok_or_else(|| {
        Failure::refused(format!(
            "hardware address: found {text:?}, expected six pairs of hexadecimal digits"
        ))
    })
}

/// An address with its mask, which Kata writes as a prefix length.
fn address(given: &IPAddress) -> Result<(IpAddr, u8), Failure> {
    let refused = || {
        Failure::refused(format!(
            "IPAddresses: found {:?} with mask {:?}, expected an address and a prefix length",
            given.address, given.mask
        ))
    };
    let ip: IpAddr = given.address.parse().map_err(|_| refused())?;
    check_unicast(ip)?;
    let length: u8 = given.mask.parse().map_err(|_| refused())?;
    if length <= longest_prefix(ip) { Ok((ip, length)) } else { Err(refused()) }
}

/// An interface of the host's with an address that means the guest itself, in whatever notation, would let the host speak to
/// services that listen on it. An IPv6 socket hears `::ffff:127.0.0.1` where that is an address of the interface.
fn check_unicast(ip: IpAddr) -> Result<(), Failure> {
    let meant = ip.to_canonical();
    let other = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast();
    if other || meant != ip || meant.is_loopback() {
        return Err(Failure::refused(format!(
            "IPAddresses: found {ip}, expected an address of one host other than this"
        )));
    }
    Ok(())
}

fn prefix(text: &str) -> Option<(IpAddr, u8)> {
    let (ip, length) = match text.split_once('/') {
        Some((ip, length)) => (ip.parse().ok()?, Some(length)),
        None => (text.parse().ok()?, None),
    };
    let length = match length {
        Some(digits) => digits.parse().ok()?,
        None => longest_prefix(ip),
    };
    (length <= longest_prefix(ip)).then_some((ip, length))
}

fn longest_prefix(ip: IpAddr) -> u8 {
    if ip.is_ipv6() { 128 } else { 32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_strictly() {
        assert_eq!(
            hardware_address("52:54:00:12:34:56").unwrap(),
            [0x52, 0x54, 0, 0x12, 0x34, 0x56]
        );
        for bad in
            ["", "52:54:00:12:34", "52:54:00:12:34:5g", "5254:00:12:34:56", "+2:54:00:12:34:56"]
        {
            assert!(hardware_address(bad).is_err(), "{bad}");
        }
        assert_eq!(prefix("10.0.2.0/24"), Some(("10.0.2.0".parse().unwrap(), 24)));
        assert_eq!(prefix("fe80::1"), Some(("fe80::1".parse().unwrap(), 128)));
        assert_eq!(prefix("10.0.2.0/33"), None);
    }

    #[test]
    fn attack_interface_named_lo() {
        assert!(check_name("interface.name", "lo").is_err());
        assert!(check_name("interface.name", "eth0").is_ok());
        assert!(check_name("interface.name", "a/b").is_err());
    }

    #[test]
    fn attack_address_that_means_the_guest_itself() {
        let given = |address: &str, mask: &str| IPAddress {
            address: address.into(),
            mask: mask.into(),
            ..Default::default()
        };
        assert!(address(&given("10.0.2.15", "24")).is_ok());
        assert!(address(&given("fd00::1", "64")).is_ok());
        for bad in [
            "127.0.0.1",
            "127.1.2.3",
            "::1",
            "0:0::1",
            "::ffff:7f00:1",
            "::ffff:10.0.2.15",
            "::",
            "0.0.0.0",
            "224.0.0.1",
            "ff02::1",
        ] {
            assert!(address(&given(bad, "8")).is_err(), "{bad}");
        }
    }

    #[test]
    fn default_route_has_an_empty_destination() {
        let route =
            Route { gateway: "10.0.2.2".into(), device: "eth0".into(), ..Default::default() };
        let message = route_message(&route, 2).unwrap();
        assert_eq!(message.header.destination_prefix_length, 0);
        assert_eq!(message.header.address_family, AddressFamily::Inet);
        let mixed =
            Route { gateway: "10.0.2.2".into(), source: "fe80::1".into(), ..Default::default() };
        assert!(route_message(&mixed, 2).is_err());
    }
}
