use std::marker::PhantomData;

use bytes::{Buf, BufMut};
use protobuf::Message;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status};

/// gRPC messages in protobuf's encoding: `E` goes out, `D` comes in.
pub(crate) struct Protobuf<E, D>(PhantomData<(E, D)>);

pub(crate) struct Out<E>(PhantomData<E>);
pub(crate) struct In<D>(PhantomData<D>);

impl<E, D> Protobuf<E, D> {
    pub(crate) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<E: Message, D: Message> Codec for Protobuf<E, D> {
    type Encode = E;
    type Decode = D;
    type Encoder = Out<E>;
    type Decoder = In<D>;

    fn encoder(&mut self) -> Out<E> {
        Out(PhantomData)
    }

    fn decoder(&mut self) -> In<D> {
        In(PhantomData)
    }
}

impl<E: Message> Encoder for Out<E> {
    type Item = E;
    type Error = Status;

    fn encode(&mut self, item: E, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let bytes = item.write_to_bytes().map_err(|error| {
            Status::new(Code::Internal, format!("message not encoded: {error}"))
        })?;
        out.put_slice(&bytes);
        Ok(())
    }
}

impl<D: Message> Decoder for In<D> {
    type Item = D;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<D>, Status> {
        let mut reader = bytes.reader();
        let message = D::parse_from_reader(&mut reader).map_err(|error| {
            Status::new(Code::InvalidArgument, format!("message not decoded: {error}"))
        })?;
        Ok(Some(message))
    }
}
