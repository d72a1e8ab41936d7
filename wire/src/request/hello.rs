//! Hello: both sides agree on a version before anything else. Its fields never change; a newer
//! side may add some behind them, which an older one doesn't look at.

use crate::codec::{DecodeError, Reader, Writer};
use crate::error::Fault;
use crate::ids::NodeId;
use crate::limits::{PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN};
use crate::request::Head;

/// What the client speaks and who it is. By default what this build does, without a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloRequest {
    /// Lowest protocol version that the client speaks.
    pub version_min: u16,
    /// Highest protocol version that the client speaks.
    pub version_max: u16,
    /// The client's name, for logs: at most 255 bytes are kept.
    pub client: String,
}

impl Default for HelloRequest {
    fn default() -> Self {
        Self {
            version_min: PROTOCOL_VERSION_MIN,
            version_max: PROTOCOL_VERSION_MAX,
            client: String::new(),
        }
    }
}

impl Head for HelloRequest {
    fn encode(&self, out: &mut Writer) {
        out.u16(self.version_min);
        out.u16(self.version_max);
        out.string(&self.client);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            version_min: reader.u16("version_min")?,
            version_max: reader.u16("version_max")?,
            client: reader.string("client")?.to_owned(),
        })
    }

    fn from_head(head: &[u8]) -> Result<Self, DecodeError> {
        Self::decode(&mut Reader::new(head))
    }
}

/// What both sides speak from here on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HelloReply {
    /// Why the connection is of no use, if so; it is closed after this reply.
    pub fault: Option<Fault>,
    /// The highest version that both sides speak.
    pub version: u16,
    /// The broker.
    pub node: NodeId,
    /// Random, made when the cluster was: tells one cluster from another.
    pub cluster_id: u128,
    /// Largest batch that the broker accepts, in bytes.
    pub batch_bytes_max: u32,
}

impl Head for HelloReply {
    fn encode(&self, out: &mut Writer) {
        Fault::encode(self.fault.as_ref(), out);
        out.u16(self.version);
        out.u32(self.node.0);
        out.u128(self.cluster_id);
        out.u32(self.batch_bytes_max);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            fault: Fault::decode(reader)?,
            version: reader.u16("version")?,
            node: NodeId(reader.u32("node")?),
            cluster_id: reader.u128("cluster_id")?,
            batch_bytes_max: reader.u32("batch_bytes_max")?,
        })
    }

    fn from_head(head: &[u8]) -> Result<Self, DecodeError> {
        Self::decode(&mut Reader::new(head))
    }
}
