//! The part of containerd's and the kubelet's gRPC interfaces that this project speaks, over unix sockets.
//!
//! The types in [`content`], [`cri`], [`images`], [`introspection`], [`snapshots`], [`types`] and [`version`] are generated from `proto/` and keep the
//! definitions' field names. A request's type names its method ([`Call`], [`StreamCall`]); [`Client`] makes calls,
//! [`serve`] answers those of a [`Snapshotter`].
#![forbid(unsafe_code)]

mod calls;
mod client;
mod codec;
mod server;

#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
mod wire {
    include!(concat!(env!("OUT_DIR"), "/wire/mod.rs"));
}

pub use protobuf::{EnumOrUnknown, MessageField};
pub use tonic::{Code, Status};
pub use wire::{content, cri, images, introspection, snapshots, types, version};

pub use calls::{Call, StreamCall};
pub use client::{Client, Responses};
pub use server::{Snapshotter, serve};
