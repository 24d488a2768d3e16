//! Requests of a camera, and what comes of them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use framework::answers::Said;
use framework::{Fault, http_device};
use http_body_util::Full;
use httpclient::{SendRequest, agent};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HOST, HeaderValue, USER_AGENT, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode};
use jiff::Timestamp;
use tokio::time::{Instant, timeout};

use crate::Onvif;
use crate::address::Address;
use crate::ask::{Ask, Service};
use crate::clock;
use crate::login::{AuthScheme, Kind, Login, Next, Question, Sent, Tries};
use crate::services::{Dialled, Profile, Services, Target, capabilities, chosen, profiles, services};
use crate::soap::{Answer, Refusal, answer, envelope};
use crate::xml::Element;

/// 512 KiB of an answer in XML.
const XML_MAX: usize = 512 << 10;
/// 8 headers that ask for a login are looked at.
const CHALLENGES_MAX: usize = 8;

/// A camera, as all its connections know it.
pub(crate) struct Camera {
    pub(crate) address: Address,
    pub(crate) dialled: Dialled,
    /// Where its device service is.
    device: Target,
    pub(crate) onvif: Onvif,
    login: Mutex<Login>,
    found: Mutex<Found>,
}

/// What it has, as far as it was asked.
#[derive(Default)]
struct Found {
    services: Option<Arc<Services>>,
    profiles: Option<Arc<Vec<Profile>>>,
}

/// Why a request came to nothing.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Failure {
    pub(crate) fault: Fault,
    /// In the camera's own words.
    pub(crate) refusal: Refusal,
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Failure { fault, refusal: Refusal::default() }
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        failure.fault
    }
}

/// What a request in SOAP is sent with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner<'a> {
    /// XML for the header of the envelope.
    pub(crate) header: &'a str,
    /// How long the answer may take beyond what any may.
    pub(crate) longer: Duration,
    /// Whether it does no harm twice.
    pub(crate) is_repeatable: bool,
}

/// As most requests are.
pub(crate) const READ: Manner<'static> = Manner { header: "", longer: Duration::ZERO, is_repeatable: true };
/// What is done once.
pub(crate) const ONCE: Manner<'static> = Manner { is_repeatable: false, ..READ };

struct Reply {
    status: StatusCode,
    offers: Vec<AuthScheme>,
    date: Option<Timestamp>,
    kind: String,
    said: Said,
}

impl Camera {
    pub(crate) fn new(address: Address, dialled: Dialled, path: String, login: Login, onvif: Onvif) -> Self {
        let device = Target { port: dialled.at.port(), path };
        Camera { address, dialled, device, onvif, login: Mutex::new(login), found: Mutex::default() }
    }

    fn login(&self) -> MutexGuard<'_, Login> {
        self.login.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its profiles are asked for anew when one is wanted.
    pub(crate) fn forget_profiles(&self) {
        self.found().profiles = None;
    }
}

/// A connection to a camera. It is made when something is asked for, and kept as long as the camera keeps it.
pub(crate) struct Line {
    pub(crate) camera: Arc<Camera>,
    /// To that port.
    kept: Option<(u16, SendRequest<Full<Bytes>>)>,
    question: Question,
}

impl Line {
    pub(crate) fn to(camera: Arc<Camera>) -> Self {
        Line { camera, kept: None, question: Question::default() }
    }

    /// Nothing is asked for a while.
    pub(crate) fn rest(&mut self) {
        self.kept = None;
    }

    /// What the camera answers to a request of one of its services.
    pub(crate) async fn call(&mut self, ask: &Ask, manner: Manner<'_>) -> Result<Element, Failure> {
        let target = self.service(ask.service).await?;
        self.soap(&target, ask, manner).await
    }

    /// Where a service is.
    pub(crate) async fn service(&mut self, service: Service) -> Result<Target, Failure> {
        if service == Service::Device {
            return Ok(self.camera.device.clone());
        }
        let known = self.services().await?;
        known.get(&service).cloned().ok_or_else(|| {
            Failure::from(Fault::Device(format!("the camera has no service `{}`", service.name())))
        })
    }

    async fn services(&mut self) -> Result<Arc<Services>, Failure> {
        if let Some(known) = self.camera.found().services.clone() {
            return Ok(known);
        }
        let device = self.camera.device.clone();
        let all = "<tds:IncludeCapability>false</tds:IncludeCapability>";
        let asked = self.soap(&device, &Ask::with(Service::Device, "GetServices", all), READ).await;
        let mut found = match asked {
            Ok(answer) => services(&answer, &self.camera.dialled),
            Err(failure) if failure.fault.is_unanswered() || failure.refusal.is_of_login() => {
                return Err(failure);
            }
            Err(_) => Services::new(),
        };
        if found.is_empty() {
            let all = "<tds:Category>All</tds:Category>";
            let answer =
                self.soap(&device, &Ask::with(Service::Device, "GetCapabilities", all), READ).await?;
            found = capabilities(&answer, &self.camera.dialled);
        }
        let found = Arc::new(found);
        self.camera.found().services = Some(Arc::clone(&found));
        Ok(found)
    }

    /// The service that has the profiles: the first edition, or that of cameras which have the second alone.
    pub(crate) async fn media(&mut self) -> Result<Service, Failure> {
        let known = self.services().await?;
        let has = |service: &Service| known.contains_key(service);
        [Service::Media, Service::Media2].into_iter().find(has).ok_or_else(|| {
            Failure::from(Fault::Device("the camera has no media service, and no profile".to_owned()))
        })
    }

    /// The token of a profile: the one that is wanted here, or in the Device, or the first.
    pub(crate) async fn profile(&mut self, wanted: Option<&str>, is_to_move: bool) -> Result<String, Fault> {
        let known = self.camera.found().profiles.clone();
        let known = match known {
            Some(known) => known,
            None => {
                let ask = match self.media().await? {
                    Service::Media2 => Ask::with(Service::Media2, "GetProfiles", "<tr2:Type>PTZ</tr2:Type>"),
                    media => Ask::of(media, "GetProfiles"),
                };
                let found = Arc::new(profiles(&self.call(&ask, READ).await?));
                self.camera.found().profiles = Some(Arc::clone(&found));
                found
            }
        };
        let wanted = wanted.or(self.camera.address.profile.as_deref());
        chosen(&known, wanted, is_to_move)
            .inspect_err(|_| self.camera.forget_profiles())
            .map_err(Fault::Device)
    }

    /// What the camera's clock says, which tokens have from then on. It is asked without a login, as every camera has to let it be.
    pub(crate) async fn clock(&mut self) -> Result<Option<Timestamp>, Fault> {
        let (target, ask) = (self.camera.device.clone(), Ask::of(Service::Device, "GetSystemDateAndTime"));
        let request = || self.camera.soap_request(&target, &ask.action, envelope("", &ask.body), None);
        let (within, port) = (self.camera.address.answer, target.port);
        let reply = exchange(&self.camera, &mut self.kept, port, &request, (within, XML_MAX), true).await?;
        let said = match answer(&reply.said.body) {
            Ok(Answer::Said(said)) => clock::of_answer(&said),
            Ok(Answer::Refused(_)) | Err(_) => None,
        };
        self.camera.login().clock_was_said(said.is_some());
        let its = said.or(reply.date);
        if let Some(its) = its {
            self.camera.login().clock(its, Timestamp::now());
        }
        Ok(said)
    }

    /// What is answered to a request in SOAP, with as many logins as the camera asks for.
    pub(crate) async fn soap(
        &mut self,
        target: &Target,
        ask: &Ask,
        manner: Manner<'_>,
    ) -> Result<Element, Failure> {
        let mut tries = Tries::default();
        loop {
            let (security, authorization, sent) = self.dress(Kind::Soap, ("POST", &target.path))?;
            let header = format!("{}{}", manner.header, security.unwrap_or_default());
            let document = envelope(&header, &ask.body);
            let request =
                || self.camera.soap_request(target, &ask.action, document.clone(), authorization.as_deref());
            let bounds = (self.camera.address.answer + manner.longer, XML_MAX);
            let exchanged =
                exchange(&self.camera, &mut self.kept, target.port, &request, bounds, manner.is_repeatable)
                    .await;
            let reply = exchanged?;
            let status = reply.status;
            let refusal = match answer(&reply.said.body) {
                Ok(Answer::Said(said)) if status.is_success() => {
                    if !is_open_to_all(&ask.action) {
                        self.camera.login().was_taken(&sent);
                    }
                    return Ok(said);
                }
                Ok(Answer::Refused(refusal)) => refusal,
                Ok(Answer::Said(_)) => {
                    Refusal { codes: vec![format!("status {status}")], reason: String::new() }
                }
                Err(why) if status.is_success() => {
                    return Err(Fault::Device(format!("its answer is not understood: {why}")).into());
                }
                Err(_) => Refusal { codes: vec![format!("status {status}")], reason: String::new() },
            };
            let is_of_login = refusal.is_of_login()
                || status == StatusCode::UNAUTHORIZED
                // Some say no more than that.
                || (status == StatusCode::BAD_REQUEST && refusal.has(&format!("status {status}")));
            if !is_of_login {
                return Err(Failure { fault: Fault::Device(refused(status, &refusal)), refusal });
            }
            self.next(&sent, &reply.offers, &refusal, &mut tries).await?;
        }
    }

    /// What is at an address of the camera, and what kind of thing that is.
    pub(crate) async fn get(&mut self, target: &Target) -> Result<(String, Bytes), Failure> {
        let mut tries = Tries::default();
        loop {
            let (_, authorization, sent) = self.dress(Kind::Get, ("GET", &target.path))?;
            let request = || {
                let request = self.camera.request(&Method::GET, target, authorization.as_deref())?;
                request.body(Full::default()).map_err(|error| cannot_be_asked(&error))
            };
            let bounds = (self.camera.address.answer, self.camera.address.bytes);
            let reply = exchange(&self.camera, &mut self.kept, target.port, &request, bounds, true).await?;
            if reply.status.is_success() {
                self.camera.login().was_taken(&sent);
                return Ok((reply.kind, reply.said.body.into()));
            }
            let refusal = Refusal { codes: vec![format!("status {}", reply.status)], reason: String::new() };
            if reply.status != StatusCode::UNAUTHORIZED {
                return Err(Failure { fault: Fault::Device(refused(reply.status, &refusal)), refusal });
            }
            self.next(&sent, &reply.offers, &refusal, &mut tries).await?;
        }
    }

    fn dress(
        &mut self,
        kind: Kind,
        request: (&str, &str),
    ) -> Result<(Option<String>, Option<String>, Sent), Fault> {
        let mut nonce = [0; 16];
        aws_lc_rs::rand::fill(&mut nonce)
            .map_err(|_| Fault::NotSent("the machine gives no random numbers for a login".to_owned()))?;
        let login = self.camera.login();
        login.check(Instant::now()).map_err(Fault::Device)?;
        Ok(login.dress(kind, &mut self.question, request, Timestamp::now(), nonce))
    }

    /// What there is to do before the same is sent again.
    async fn next(
        &mut self,
        sent: &Sent,
        offers: &[AuthScheme],
        refusal: &Refusal,
        tries: &mut Tries,
    ) -> Result<(), Failure> {
        let said = refusal.to_string();
        let next =
            self.camera.login().was_refused(&mut self.question, sent, offers, &said, tries, Instant::now());
        match next {
            Next::Again => Ok(()),
            Next::AfterItsClock => Ok(self.clock().await.map(drop)?),
            Next::Stop(sentence) => {
                let mut refusal = refusal.clone();
                // Also where the camera has said nothing but a status.
                refusal.codes.push("NotAuthorized".to_owned());
                Err(Failure { fault: Fault::Device(sentence), refusal })
            }
        }
    }
}

impl Camera {
    fn request(
        &self,
        method: &Method,
        target: &Target,
        authorization: Option<&str>,
    ) -> Result<hyper::http::request::Builder, Fault> {
        let mut request = Request::builder()
            .method(method)
            .uri(target.path.as_str())
            .header(HOST, self.dialled.authority(target.port))
            .header(USER_AGENT, format!("{}/{}", agent::ONVIF_MAPPER, env!("CARGO_PKG_VERSION")));
        if let Some(authorization) = authorization {
            let value = HeaderValue::from_bytes(authorization.as_bytes()).map_err(|_| {
                Fault::Unfit("what logs in has characters that no header can have".to_owned())
            })?;
            request = request.header(AUTHORIZATION, value);
        }
        Ok(request)
    }

    fn soap_request(
        &self,
        target: &Target,
        action: &str,
        document: String,
        authorization: Option<&str>,
    ) -> Result<Request<Full<Bytes>>, Fault> {
        self.request(&Method::POST, target, authorization)?
            .header(CONTENT_TYPE, format!("application/soap+xml; charset=utf-8; action=\"{action}\""))
            .body(Full::new(Bytes::from(document)))
            .map_err(|error| cannot_be_asked(&error))
    }
}

/// Sends a request on the connection that is kept, or on a new one. What was not answered is sent again, if the connection was closed
/// while idle, and if it does no harm twice or nothing was sent.
async fn exchange(
    camera: &Camera,
    kept: &mut Option<(u16, SendRequest<Full<Bytes>>)>,
    port: u16,
    request: &(dyn Fn() -> Result<Request<Full<Bytes>>, Fault> + Sync),
    (within, most): (Duration, usize),
    is_repeatable: bool,
) -> Result<Reply, Fault> {
    let silent = || Fault::Silent(format!("the camera has not answered within {} ms", within.as_millis()));
    let old = kept.take().filter(|(to, sender)| *to == port && !sender.is_closed()).map(|(_, sender)| sender);
    let old = match old {
        Some(mut sender) => matches!(timeout(within, sender.ready()).await, Ok(Ok(()))).then_some(sender),
        None => None,
    };
    let is_old = old.is_some();
    let mut sender = match old {
        Some(sender) => sender,
        None => connect(camera, port).await?,
    };
    let first = timeout(within, sender.send_request(request()?)).await.map_err(|_| silent())?;
    let answered = match first {
        Ok(answered) => answered,
        Err(error) if is_old && (error.is_unsent() || is_repeatable) => {
            tracing::debug!(%error, "a connection that was kept is none any more");
            sender = connect(camera, port).await?;
            let again = timeout(within, sender.send_request(request()?)).await.map_err(|_| silent())?;
            again.map_err(|error| Fault::Link(format!("the camera has closed the connection: {error}")))?
        }
        Err(error) => {
            let reason = format!("the camera has closed the connection: {error}");
            return Err(if error.is_unsent() { Fault::NotSent(reason) } else { Fault::Link(reason) });
        }
    };
    let (status, offers, date, kind) = head(&answered);
    let whole = timeout(within, camera.onvif.answers.whole(answered.into_body(), most)).await;
    let said = whole.map_err(|_| Fault::Silent("the answer does not come to its end".to_owned()))??;
    *kept = Some((port, sender));
    Ok(Reply { status, offers, date, kind, said })
}

fn head(answered: &Response<Incoming>) -> (StatusCode, Vec<AuthScheme>, Option<Timestamp>, String) {
    let headers = answered.headers();
    let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
    let challenges = headers.get_all(WWW_AUTHENTICATE).iter().take(CHALLENGES_MAX).filter_map(text);
    let offers = challenges.flat_map(|challenge| AuthScheme::read(&challenge)).collect();
    let date = headers.get(DATE).and_then(text).and_then(|date| clock::of_header(&date));
    let kind = headers.get(CONTENT_TYPE).and_then(text).unwrap_or_default();
    (answered.status(), offers, date, kind)
}

/// A connection to a port of the camera, if that is one that devices may have.
async fn connect(camera: &Camera, port: u16) -> Result<SendRequest<Full<Bytes>>, Fault> {
    let at = SocketAddr::new(camera.dialled.at.ip(), port);
    let failed = |reason: String| Fault::NotSent(format!("no connection to {at}: {reason}"));
    camera.onvif.targets.check(&camera.dialled.host, at).map_err(failed)?;
    http_device::connect(&[at], camera.address.answer).await.map_err(failed)
}

/// What every camera answers to everybody says nothing of a login.
fn is_open_to_all(action: &str) -> bool {
    ["/GetServices", "/GetCapabilities", "/GetSystemDateAndTime"].iter().any(|name| action.ends_with(name))
}

fn refused(status: StatusCode, refusal: &Refusal) -> String {
    match status {
        status if status.is_redirection() => {
            format!("status {status}: it wants to be asked elsewhere; write that address into `url`")
        }
        StatusCode::NOT_FOUND => {
            format!(
                "{refusal}: ONVIF is not there; write the path into `url`, and see whether the camera has it switched on"
            )
        }
        StatusCode::FORBIDDEN => format!("{refusal}: may `userName` do this there?"),
        _ => refusal.to_string(),
    }
}

fn cannot_be_asked(error: &hyper::http::Error) -> Fault {
    Fault::Device(format!("this cannot be asked for: {error}"))
}
