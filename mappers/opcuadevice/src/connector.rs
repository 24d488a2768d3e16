//! How a server is dialled: within a time, and by a reader that keeps no more of it than was agreed.

use std::sync::Arc;
use std::time::Duration;

use opcua_client::ConnectionSource;
use opcua_client::transport::{Connector, RequestRecv, SecureChannelState, TransportConfiguration};
use opcua_core::comms::tcp_codec::TcpCodec;
use opcua_core::comms::url::hostname_port_from_url;
use opcua_core::constants::DEFAULT_OPC_UA_SERVER_PORT;
use opcua_types::{DecodingOptions, EndpointDescription, Error, StatusCode};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::timeout;
use tokio_util::codec::FramedRead;

use crate::chunk_sizes::{Breach, ChunkSizes};
use crate::transport::{Link, Reader};

/// Dials one server.
#[derive(Debug, Clone)]
pub(crate) struct Dialler {
    url: String,
    within: Duration,
    breach: Breach,
}

impl Dialler {
    /// `within` is for the name, the connection, and the server's word of welcome together.
    pub(crate) fn new(url: &str, within: Duration) -> Self {
        Dialler { url: url.to_owned(), within, breach: Breach::default() }
    }

    /// What the server has sent that none may send.
    pub(crate) fn breach(&self) -> &Breach {
        &self.breach
    }
}

async fn dial(
    url: &str,
    options: DecodingOptions,
    breach: Breach,
) -> Result<(Reader, OwnedWriteHalf), Error> {
    let (host, port) = hostname_port_from_url(url, DEFAULT_OPC_UA_SERVER_PORT)
        .map_err(|code| Error::new(code, "the URL names no host"))?;
    let socket = TcpStream::connect(format!("{host}:{port}")).await;
    let socket = socket.map_err(|error| Error::new(StatusCode::BadCommunicationError, error.to_string()))?;
    let (reader, writer) = socket.into_split();
    Ok((FramedRead::new(ChunkSizes::new(reader, breach), TcpCodec::new(options)), writer))
}

impl Connector for Dialler {
    type Transport = Link;

    async fn connect(
        &self,
        channel: Arc<SecureChannelState>,
        outgoing: RequestRecv,
        config: TransportConfiguration,
    ) -> Result<Self::Transport, Error> {
        let welcomed = async {
            let options = channel.secure_channel().read().decoding_options();
            let halves = dial(&self.url, options, self.breach.clone()).await?;
            Link::greet(halves, &self.url, channel, outgoing, &config).await
        };
        timeout(self.within, welcomed).await.unwrap_or_else(|_| {
            Err(Error::new(StatusCode::BadTimeout, format!("no answer within {} s", self.within.as_secs())))
        })
    }

    fn default_endpoint(&self) -> EndpointDescription {
        EndpointDescription::from(self.url.as_str())
    }
}

/// What the server calls itself does not count: it is dialled where the Device says.
impl ConnectionSource for Dialler {
    type Builder = Dialler;

    fn get_connector(&self, _: &EndpointDescription) -> Result<Dialler, Error> {
        Ok(self.clone())
    }
}
