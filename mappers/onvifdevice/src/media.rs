//! Where a camera's stream and its pictures are, and the pictures themselves.

use std::time::Duration;

use framework::Fault;
use framework::stream::{Frame, FrameSource, NextFrame, picture, picture_format};
use tokio::time::sleep;

use crate::ask::{Ask, Service};
use crate::exchange::{Line, READ};
use crate::services::Target;
use crate::soap::short;
use crate::xml::escape;

/// Where the stream of a profile is, without a login that some cameras put into it.
pub(crate) async fn stream_uri(line: &mut Line, profile: Option<&str>) -> Result<String, Fault> {
    let of_old = "<trt:StreamSetup><tt:Stream>RTP-Unicast</tt:Stream><tt:Transport><tt:Protocol>RTSP</tt:Protocol></tt:Transport></trt:StreamSetup>";
    let address = uri(line, profile, "GetStreamUri", of_old, "<tr2:Protocol>RTSP</tr2:Protocol>").await?;
    Ok(without_login(&address))
}

/// Where the pictures of a profile are, as the camera says it.
pub(crate) async fn snapshot_uri(line: &mut Line, profile: Option<&str>) -> Result<String, Fault> {
    uri(line, profile, "GetSnapshotUri", "", "").await
}

async fn uri(
    line: &mut Line,
    profile: Option<&str>,
    operation: &str,
    of_first: &str,
    of_second: &str,
) -> Result<String, Fault> {
    let token = line.profile(profile, false).await?;
    let media = line.media().await?;
    let (before, prefix) = (if media == Service::Media2 { of_second } else { of_first }, media.prefix());
    let inside = format!("{before}<{prefix}:ProfileToken>{}</{prefix}:ProfileToken>", escape(&token));
    let asked = line.call(&Ask::with(media, operation, &inside), READ).await;
    // A profile that is none any more is not asked for again.
    let answer = asked.inspect_err(|_| line.camera.forget_profiles())?;
    let found = answer.text_at("MediaUri/Uri").or_else(|| answer.text_at("Uri"));
    let none = || Fault::NoValue(format!("the camera's answer to {operation} has no address"));
    found.map(str::to_owned).ok_or_else(none)
}

/// `rtsp://user:password@host/` is no value for a twin.
pub(crate) fn without_login(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or(authority);
    format!("{scheme}://{host}{path}")
}

/// The pictures of a profile, each asked for by itself.
pub(crate) struct Pictures {
    line: Line,
    profile: Option<String>,
    /// Where the last one was.
    at: Option<Target>,
}

impl Pictures {
    pub(crate) fn new(line: Line, profile: Option<String>) -> Self {
        Pictures { line, profile, at: None }
    }

    async fn frame(&mut self, after: Duration) -> Result<Frame, Fault> {
        sleep(after).await;
        let target = match self.at.take() {
            Some(target) => target,
            None => {
                let address = snapshot_uri(&mut self.line, self.profile.as_deref()).await?;
                self.line.camera.dialled.target(&without_login(&address)).map_err(|why| {
                    Fault::Device(format!("the camera's picture is not one that can be asked for: {why}"))
                })?
            }
        };
        let (kind, bytes) = self.line.get(&target).await?;
        let format = picture_format(&kind).ok_or_else(|| {
            Fault::Device(format!("it sends `{}`; a picture is image/jpeg or image/png", short(&kind)))
        })?;
        let frame = picture(bytes, format)?;
        self.at = Some(target);
        Ok(frame)
    }
}

impl FrameSource for Pictures {
    fn next(&mut self, after: Duration) -> NextFrame<'_> {
        Box::pin(self.frame(after))
    }

    fn rest(&mut self) {
        self.line.rest();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_in_an_address_is_left_out() {
        for (address, shown) in [
            ("rtsp://u:p@192.0.2.7:554/live?x=@1", "rtsp://192.0.2.7:554/live?x=@1"),
            ("rtsp://u:p@a@192.0.2.7", "rtsp://192.0.2.7"),
            ("rtsp://192.0.2.7/live", "rtsp://192.0.2.7/live"),
            ("live", "live"),
        ] {
            assert_eq!(without_login(address), shown);
        }
    }
}
