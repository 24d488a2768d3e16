//! An image registry on loopback of a host's network namespace.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::TestHost;
use crate::oci::{Image, Parts};

/// 50 ms between the bytes of a layer that drips.
const DRIP_EVERY: Duration = Duration::from_millis(50);
/// 4 KiB: what is longer is a layer.
const LAYER_MIN: usize = 4096;

/// Repositories that were asked for, each with `user:password` if any came.
type Asked = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// One repository of a registry.
#[derive(Debug, Clone)]
pub struct Repository {
    /// Its path, as `team/app`.
    pub path: String,
    /// What every tag of it is.
    pub image: Image,
    /// Who may pull, as `user:password`; empty: anybody.
    pub users: Vec<String>,
}

/// A running registry. Dropping it ends it.
#[derive(Debug)]
pub struct Registry {
    listener: TcpListener,
    asked: Asked,
    layers: Arc<Layers>,
}

/// What became of the layers of a registry that drips.
#[derive(Debug, Default)]
struct Layers {
    begun: AtomicUsize,
    broken_off: AtomicUsize,
}

struct Shelf {
    repositories: BTreeMap<String, (Parts, Vec<String>)>,
    asked: Asked,
    layers: Arc<Layers>,
    drips: bool,
}

impl TestHost {
    /// Starts a registry that the host's runtime knows by `name`, as `registry.local:5000`, over plain HTTP.
    ///
    /// # Errors
    /// When an image cannot be made, or the registry cannot listen.
    pub fn registry(&self, name: &str, repositories: Vec<Repository>) -> Result<Registry> {
        self.registry_of(name, repositories, false)
    }

    /// Starts one that sends layers byte by byte: a pull from it is given up before it ends.
    ///
    /// # Errors
    /// See [`TestHost::registry`].
    pub fn dripping_registry(&self, name: &str, repositories: Vec<Repository>) -> Result<Registry> {
        self.registry_of(name, repositories, true)
    }

    fn registry_of(&self, name: &str, repositories: Vec<Repository>, drips: bool) -> Result<Registry> {
        let listener = self.registry_door(name)?;
        let (asked, layers) = (Asked::default(), Arc::<Layers>::default());
        let (told, counted) = (Arc::clone(&asked), Arc::clone(&layers));
        let mut shelf = Shelf { repositories: BTreeMap::new(), asked: told, layers: counted, drips };
        for repository in repositories {
            shelf.repositories.insert(repository.path, (repository.image.parts()?, repository.users));
        }
        let (shelf, door) = (Arc::new(shelf), listener.try_clone().context("clone the listener")?);
        std::thread::spawn(move || {
            for stream in door.incoming() {
                let Ok(stream) = stream else { return };
                let shelf = Arc::clone(&shelf);
                std::thread::spawn(move || drop(shelf.serve(&stream)));
            }
        });
        Ok(Registry { listener, asked, layers })
    }

    /// Starts a registry that never answers: a pull from it goes on until it is given up.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn silent_registry(&self, name: &str) -> Result<Registry> {
        let listener = self.registry_door(name)?;
        let door = listener.try_clone().context("clone the listener")?;
        std::thread::spawn(move || {
            let mut held = Vec::new();
            while let Ok((stream, _)) = door.accept() {
                held.push(stream);
            }
        });
        Ok(Registry { listener, asked: Arc::default(), layers: Arc::default() })
    }

    /// Where the registry `name` listens, in the host's network namespace; the runtime is told.
    fn registry_door(&self, name: &str) -> Result<TcpListener> {
        let namespace = File::open(format!("/run/netns/{}", self.netns())).context("open the namespace")?;
        let bind = move || -> Result<TcpListener> {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .context("enter the namespace")?;
            TcpListener::bind("127.0.0.1:0").context("listen")
        };
        // A socket stays in the namespace in which it was made.
        let listener =
            std::thread::spawn(bind).join().map_err(|_| anyhow!("the registry's thread failed"))??;
        let address = listener.local_addr().context("the registry's address")?;
        let folder = self.dir().join("certs.d").join(name);
        std::fs::create_dir_all(&folder).context("make the runtime's folder of registries")?;
        let hosts = format!(
            "server = \"http://{address}\"\n[host.\"http://{address}\"]\ncapabilities = [\"pull\", \"resolve\"]\n"
        );
        std::fs::write(folder.join("hosts.toml"), hosts).context("name the registry to the runtime")?;
        Ok(listener)
    }
}

impl Registry {
    /// Who asked for manifests so far: the repository, and `user:password` if any came.
    pub fn asked(&self) -> Vec<(String, Option<String>)> {
        self.asked.lock().map(|asked| asked.clone()).unwrap_or_default()
    }

    /// How many layers it has begun to drip, and how many of them nobody would have any more.
    pub fn layers(&self) -> (usize, usize) {
        let Layers { begun, broken_off } = &*self.layers;
        (begun.load(Ordering::Relaxed), broken_off.load(Ordering::Relaxed))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Ends the wait for the next connection.
        if let Ok(listener) = self.listener.try_clone() {
            drop(TcpStream::from(OwnedFd::from(listener)).shutdown(Shutdown::Both));
        }
    }
}

impl Shelf {
    /// Answers the requests of one connection.
    fn serve(&self, stream: &TcpStream) -> Result<()> {
        let mut reader = BufReader::new(stream);
        loop {
            let mut first = String::new();
            if reader.read_line(&mut first)? == 0 {
                return Ok(());
            }
            let mut user = None;
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
                    break;
                }
                let (name, value) = line.split_once(':').unwrap_or_default();
                if name.eq_ignore_ascii_case("authorization") {
                    let packed = value.trim().strip_prefix("Basic ").unwrap_or_default();
                    user = STANDARD.decode(packed).ok().and_then(|plain| String::from_utf8(plain).ok());
                }
            }
            let mut words = first.split_whitespace();
            let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let (status, kind, body) = self.answer(path.split('?').next().unwrap_or(path), method, user);
            let mut head =
                format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n", body.len());
            if status.starts_with("401") {
                head.push_str("WWW-Authenticate: Basic realm=\"test\"\r\n");
            }
            let mut stream = stream;
            stream.write_all(head.as_bytes())?;
            stream.write_all(b"\r\n")?;
            if method == "HEAD" {
                continue;
            }
            if self.drips && body.len() >= LAYER_MIN {
                self.drip(stream, body)?;
            } else {
                stream.write_all(body)?;
            }
        }
    }

    fn drip(&self, mut stream: &TcpStream, body: &[u8]) -> Result<()> {
        self.layers.begun.fetch_add(1, Ordering::Relaxed);
        for byte in body {
            if let Err(error) = stream.write_all(&[*byte]) {
                self.layers.broken_off.fetch_add(1, Ordering::Relaxed);
                return Err(error.into());
            }
            std::thread::sleep(DRIP_EVERY);
        }
        Ok(())
    }

    fn answer(&self, path: &str, method: &str, user: Option<String>) -> (&str, &str, &[u8]) {
        const NOT_FOUND: (&str, &str, &[u8]) = ("404 Not Found", "text/plain", b"");
        let Some(rest) = path.strip_prefix("/v2/") else { return NOT_FOUND };
        let found = ["/manifests/", "/blobs/"].iter().find_map(|what| {
            let (repository, reference) = rest.split_once(what)?;
            Some((repository, *what, reference))
        });
        let Some((repository, what, reference)) = found else { return NOT_FOUND };
        let Some((parts, users)) = self.repositories.get(repository) else { return NOT_FOUND };
        if what == "/manifests/"
            && method == "HEAD"
            && let Ok(mut asked) = self.asked.lock()
        {
            asked.push((repository.to_owned(), user.clone()));
        }
        if !users.is_empty() && !user.is_some_and(|user| users.contains(&user)) {
            return ("401 Unauthorized", "application/json", b"{\"errors\":[{\"code\":\"UNAUTHORIZED\"}]}");
        }
        if what == "/manifests/" {
            return ("200 OK", "application/vnd.oci.image.manifest.v1+json", &parts.manifest);
        }
        match parts.blobs.get(reference.trim_start_matches("sha256:")) {
            Some(blob) => ("200 OK", "application/octet-stream", blob),
            None => NOT_FOUND,
        }
    }
}
