//! The pod's network: what CNI put into its namespace becomes the guest's, and frames go over a tap device.
//!
//! CNI gives the pod an interface (a veth whose other end is on the node) with addresses and routes. Every frame that arrives
//! there is redirected to the tap device of the VM's card, and every frame of the guest to the interface (tc, `mirred`), for
//! all protocols. The guest has the interface's hardware address, addresses, routes and packet size, so that the node sees no
//! difference. The namespace's own stack keeps its addresses and never sees a frame.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ah_agent_api::agent::{
    ARPNeighbors, AddARPNeighborsRequest, Routes, UpdateInterfaceRequest, UpdateRoutesRequest,
};
use ah_agent_api::types::{ARPNeighbor, IPAddress, IPFamily, Interface, Route};
use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType,
};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};

use crate::ShimError;

/// Name of the tap device in the pod's namespace.
pub(crate) const TAP: &str = "tap0_anchorhold";
/// Parent of filters on arriving frames (`tc ... parent ffff:`; linux/pkt_sched.h, TC_H_MAKE(TC_H_INGRESS, 0)).
const INGRESS: u32 = 0xffff_0000;
/// All protocols (linux/if_ether.h), in network order as filters have it.
const ETH_P_ALL: u16 = 0x0003_u16.to_be();
/// Name of the guest's one interface.
const GUEST_DEVICE: &str = "eth0";
const NUD_PERMANENT: i32 = 0x80;

/// What a pod's namespace holds.
#[derive(Debug, Clone)]
pub(crate) struct PodNetwork {
    namespace: PathBuf,
    name: String,
    /// The interface's hardware address, which is the guest's.
    pub(crate) hardware_address: String,
    pub(crate) interface: UpdateInterfaceRequest,
    pub(crate) routes: UpdateRoutesRequest,
    pub(crate) neighbours: Option<AddARPNeighborsRequest>,
}

/// Reads the namespace; `None` for one with the loopback alone.
pub(crate) fn read(namespace: &Path) -> Result<Option<PodNetwork>, ShimError> {
    inside(namespace, async |handle| read_inside(namespace, &handle).await)
}

impl PodNetwork {
    /// Redirects frames both ways between interface and tap. QEMU has made the tap by now.
    pub(crate) fn join(&self) -> Result<(), ShimError> {
        inside(&self.namespace, async |handle| {
            let links = links(&handle).await?;
            let (tap, own) = (index(&links, TAP)?, index(&links, &self.name)?);
            let tap_up = LinkUnspec::new_with_index(tap).mtu(self.mtu()).up().build();
            handle.link().set(tap_up).execute().await.map_err(failed("setting the tap up"))?;
            for (from, to) in [(own, tap), (tap, own)] {
                redirect(&handle, from, to).await?;
            }
            Ok(())
        })
    }

    /// The namespace.
    pub(crate) fn namespace(&self) -> &Path {
        &self.namespace
    }

    /// The pod's first address.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        let addresses = &self.interface.interface.IPAddresses;
        addresses.iter().find_map(|found| found.address.parse().ok())
    }

    fn mtu(&self) -> u32 {
        u32::try_from(self.interface.interface.mtu).unwrap_or(1500)
    }
}

/// Takes the redirection from the interface; the tap's went with it. What is not there any more is no error.
pub(crate) fn leave(namespace: &Path) -> Result<(), ShimError> {
    inside(namespace, async |handle| {
        for link in links(&handle).await? {
            if is_pods(&link) {
                let index = signed(link.header.index);
                let mut request = handle.qdisc().del(index);
                request.message_mut().header.parent =
                    rtnetlink::packet_route::tc::TcHandle::INGRESS;
                if let Err(error) = request.execute().await {
                    tracing::debug!(%error, "taking the redirection away");
                }
            }
        }
        Ok(())
    })
}

/// Runs with a netlink connection of the namespace, on a thread that is in it.
fn inside<T: Send>(
    namespace: &Path,
    work: impl AsyncFnOnce(Handle) -> Result<T, ShimError> + Send,
) -> Result<T, ShimError> {
    ah_vmm::namespace::inside(namespace, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(ShimError::network("starting"))?;
        runtime.block_on(async {
            let opened = rtnetlink::new_connection();
            let (connection, handle, _) =
                opened.map_err(ShimError::network("opening rtnetlink"))?;
            let task = tokio::spawn(connection);
            let result = work(handle).await;
            task.abort();
            result
        })
    })?
}

fn failed(what: &'static str) -> impl FnOnce(rtnetlink::Error) -> ShimError {
    ShimError::network(what)
}

fn other(what: &'static str, text: String) -> ShimError {
    ShimError::network(what)(std::io::Error::other(text))
}

async fn links(handle: &Handle) -> Result<Vec<LinkMessage>, ShimError> {
    handle.link().get().execute().try_collect().await.map_err(failed("listing interfaces"))
}

fn name(link: &LinkMessage) -> &str {
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    });
    name.unwrap_or_default()
}

fn index(links: &[LinkMessage], wanted: &str) -> Result<u32, ShimError> {
    let found = links.iter().find(|link| name(link) == wanted);
    found.map(|link| link.header.index).ok_or_else(|| {
        other("finding an interface", format!("found no {wanted} in the pod's namespace"))
    })
}

fn signed(index: u32) -> i32 {
    i32::try_from(index).unwrap_or(i32::MAX)
}

async fn redirect(handle: &Handle, from: u32, to: u32) -> Result<(), ShimError> {
    let add = handle.qdisc().add(signed(from)).ingress().execute().await;
    add.map_err(failed("adding an ingress queue"))?;
    let filter = handle.traffic_filter(signed(from)).add().parent(INGRESS).protocol(ETH_P_ALL);
    let filter = filter.redirect(to).map_err(failed("making a redirection"))?;
    filter.execute().await.map_err(failed("redirecting frames"))
}

/// The pod's interface: up, with a hardware address, not the loopback, not the tap, not one of the kernel's idle tunnels.
fn is_pods(link: &LinkMessage) -> bool {
    let flags = link.header.flags;
    flags.contains(LinkFlags::Up)
        && !flags.contains(LinkFlags::Loopback)
        && name(link) != TAP
        && hardware_address(link).is_some()
}

fn hardware_address(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(bytes) if bytes.len() == 6 => Some(colons(bytes)),
        _ => None,
    })
}

fn colons(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

async fn read_inside(namespace: &Path, handle: &Handle) -> Result<Option<PodNetwork>, ShimError> {
    let links = links(handle).await?;
    let pods: Vec<&LinkMessage> = links.iter().filter(|link| is_pods(link)).collect();
    let link = match pods.as_slice() {
        [] => return Ok(None),
        [one] => *one,
        several => {
            let names: Vec<&str> = several.iter().map(|link| name(link)).collect();
            let text = format!("found {}, expected one interface", names.join(", "));
            return Err(other("reading the pod's namespace", text));
        }
    };
    let index = link.header.index;
    let hardware_address = hardware_address(link).unwrap_or_default();
    let interface = interface(link, &hardware_address, addresses(handle, index).await?);
    Ok(Some(PodNetwork {
        namespace: namespace.to_owned(),
        name: name(link).to_owned(),
        hardware_address,
        interface: UpdateInterfaceRequest {
            interface: Some(interface).into(),
            ..Default::default()
        },
        routes: routes(handle, index).await?,
        neighbours: neighbours(handle, index).await?,
    }))
}

fn interface(link: &LinkMessage, hardware_address: &str, addresses: Vec<IPAddress>) -> Interface {
    let mtu = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(u64::from(*mtu)),
        _ => None,
    });
    Interface {
        device: GUEST_DEVICE.into(),
        name: GUEST_DEVICE.into(),
        IPAddresses: addresses,
        mtu: mtu.unwrap_or(1500),
        hwAddr: hardware_address.into(),
        ..Default::default()
    }
}

fn family(ip: IpAddr) -> IPFamily {
    if ip.is_ipv6() { IPFamily::v6 } else { IPFamily::v4 }
}

/// The addresses of more than the link: link-local ones the guest makes itself.
async fn addresses(handle: &Handle, index: u32) -> Result<Vec<IPAddress>, ShimError> {
    let all = handle.address().get().set_link_index_filter(index).execute();
    let all: Vec<AddressMessage> = all.try_collect().await.map_err(failed("listing addresses"))?;
    let address = |message: &AddressMessage| {
        let ip = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(ip) => Some(*ip),
            _ => None,
        });
        let ip = ip.or_else(|| {
            message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(ip) => Some(*ip),
                _ => None,
            })
        })?;
        (message.header.scope == AddressScope::Universe).then(|| IPAddress {
            family: family(ip).into(),
            address: ip.to_string(),
            mask: message.header.prefix_len.to_string(),
            ..Default::default()
        })
    };
    Ok(all.iter().filter_map(address).collect())
}

/// The routes of the main table that the kernel does not make of the addresses.
async fn routes(handle: &Handle, index: u32) -> Result<UpdateRoutesRequest, ShimError> {
    let four = RouteMessageBuilder::<std::net::Ipv4Addr>::new().build();
    let six = RouteMessageBuilder::<std::net::Ipv6Addr>::new().build();
    let mut found = Vec::new();
    for message in [four, six] {
        let all = handle.route().get(message).execute();
        let all: Vec<RouteMessage> = all.try_collect().await.map_err(failed("listing routes"))?;
        found.extend(all.iter().filter_map(|message| route(message, index)));
    }
    let routes = Routes { Routes: found, ..Default::default() };
    Ok(UpdateRoutesRequest { routes: Some(routes).into(), ..Default::default() })
}

fn route(message: &RouteMessage, index: u32) -> Option<Route> {
    let header = &message.header;
    let wanted = header.table == RouteHeader::RT_TABLE_MAIN
        && header.kind == RouteType::Unicast
        && header.protocol != RouteProtocol::Kernel
        && message.attributes.contains(&RouteAttribute::Oif(index));
    if !wanted {
        return None;
    }
    let (mut dest, mut gateway, mut source) = (None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(found) => dest = ip(found),
            RouteAttribute::Gateway(found) => gateway = ip(found),
            RouteAttribute::PrefSource(found) => source = ip(found),
            _ => {}
        }
    }
    let six = header.address_family == rtnetlink::packet_route::AddressFamily::Inet6;
    let text = |ip: Option<IpAddr>| ip.map(|ip| ip.to_string()).unwrap_or_default();
    Some(Route {
        dest: dest
            .map(|ip| format!("{ip}/{}", header.destination_prefix_length))
            .unwrap_or_default(),
        gateway: text(gateway),
        device: GUEST_DEVICE.into(),
        source: text(source),
        scope: u32::from(u8::from(header.scope)),
        family: (if six { IPFamily::v6 } else { IPFamily::v4 }).into(),
        ..Default::default()
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

/// The neighbours that somebody set for good: some CNI plugins have their gateways there.
async fn neighbours(
    handle: &Handle,
    index: u32,
) -> Result<Option<AddARPNeighborsRequest>, ShimError> {
    let all = handle.neighbours().get().execute();
    let all: Vec<NeighbourMessage> =
        all.try_collect().await.map_err(failed("listing neighbours"))?;
    let found: Vec<ARPNeighbor> =
        all.iter().filter_map(|message| neighbour(message, index)).collect();
    if found.is_empty() {
        return Ok(None);
    }
    let neighbors = ARPNeighbors { ARPNeighbors: found, ..Default::default() };
    Ok(Some(AddARPNeighborsRequest { neighbors: Some(neighbors).into(), ..Default::default() }))
}

fn neighbour(message: &NeighbourMessage, index: u32) -> Option<ARPNeighbor> {
    let header = &message.header;
    if header.ifindex != index || header.state != NeighbourState::Permanent {
        return None;
    }
    let mut to = None;
    let mut hardware = None;
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => to = Some((*ip).into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => to = Some((*ip).into()),
            NeighbourAttribute::LinkLocalAddress(bytes) if bytes.len() == 6 => {
                hardware = Some(colons(bytes));
            }
            _ => {}
        }
    }
    let to: IpAddr = to.filter(|ip: &IpAddr| !ip.is_multicast())?;
    let address =
        IPAddress { family: family(to).into(), address: to.to_string(), ..Default::default() };
    Some(ARPNeighbor {
        toIPAddress: Some(address).into(),
        device: GUEST_DEVICE.into(),
        lladdr: hardware?,
        state: NUD_PERMANENT,
        ..Default::default()
    })
}
