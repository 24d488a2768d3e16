//! The whole of a release, in order.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::compile::{self, Toolchain, Workspace};
use crate::crates::{Graph, Id};
use crate::folder::{Folder, SUMS};
use crate::image::{self, Image, Labels};
use crate::order::Order;
use crate::parts::{self, OF_DEBIAN, PROGRAMS, Program};
use crate::programs::{self, Binary, Said};
use crate::provenance::Provenance;
use crate::signing::Signer;
use crate::source::{self, Source, Told};
use crate::target::Target;
use crate::{cosign, crates, deb, notices, sbom};

/// Makes the release of the sources at `root`, and tells each step.
///
/// # Errors
/// A sentence that names what is wrong and what to do. What lay in the folder before is then still there.
pub fn make(order: &Order, root: &Path, epoch: Option<String>, say: &mut dyn FnMut(&str)) -> Result<()> {
    let signer = order.key.as_deref().map(Signer::read).transpose()?;
    let programs = parts::chosen(&order.only).map_err(anyhow::Error::msg)?;
    let toolchain = Toolchain::find()?;
    let targets = if order.targets.is_empty() {
        vec![Target::of_triple(&toolchain.host).map_err(anyhow::Error::msg)?]
    } else {
        order.targets.clone()
    };
    let told = Told { revision: order.revision.clone(), allow_dirty: order.allow_dirty, epoch };
    let (built, source) = match &order.binaries {
        Some(folder) => given(folder, &programs, &targets, root, &told)?,
        None => {
            let source = source::find(root, &told)?;
            // All that is missing is told before the first of many minutes.
            for target in &targets {
                toolchain.check(*target)?;
            }
            (compiled(root, &programs, &targets, &toolchain, &source, order, say)?, source)
        }
    };
    let out = match &order.out {
        Some(out) => out.clone(),
        None => Workspace::find(root, &targets[..1])?.target_folder()?.join("dist"),
    };
    let release = Release { order, root, source: &source, programs: &programs };
    let mut folder = Folder::begin(&out)?;
    let images = release.files(&built, &mut folder, say)?;
    release.provenance(order.binaries.is_none().then_some(&toolchain), &built, &mut folder)?;
    if let Some(signer) = &signer {
        release.sign(signer, &images, &folder)?;
        say(&format!("signed with the key {}", signer.key_id()));
    }
    folder.end()?;
    say(&format!("the release is in {}", out.display()));
    Ok(())
}

/// The version and the licence of all programs: the workspace's, as this one's.
const VERSION: &str = env!("CARGO_PKG_VERSION");
const LICENSE: &str = env!("CARGO_PKG_LICENSE");

/// Programs for one kind of machine.
type Built = (Target, Vec<Binary>);

/// Ready ones. Those that say of which commit they are say the same.
fn given(
    folder: &Path,
    programs: &[Program],
    targets: &[Target],
    root: &Path,
    told: &Told,
) -> Result<(Vec<Built>, Source)> {
    let [target] = targets else {
        bail!("--binaries: a folder has programs for one kind of machine: give one --target")
    };
    let binaries = programs::read(folder, programs, *target)?;
    let mut commit: Option<(String, &str)> = None;
    for binary in &binaries {
        let name = binary.program.name;
        let own = match programs::said(&binary.bytes, VERSION) {
            Said::Commit(own) => own,
            Said::OtherVersion => bail!(
                "{name} in {} is not of version {VERSION}, as the sources here are: take the sources that it is of",
                folder.display()
            ),
            Said::Nothing if told.revision.is_some() => continue,
            Said::Nothing => bail!(
                "{name} in {} does not say of which commit it is, as programs of `cargo dist` do: say it with --revision",
                folder.display()
            ),
        };
        match &commit {
            Some((others, other)) if own != *others => {
                bail!("{name} is of commit {own}, and {other} of {others}: a release is of one")
            }
            Some(_) => {}
            None => commit = Some((own, name)),
        }
    }
    let source = source::of_programs(root, commit.map(|(commit, _)| commit), told)?;
    Ok((vec![(*target, binaries)], source))
}

fn compiled(
    root: &Path,
    programs: &[Program],
    targets: &[Target],
    toolchain: &Toolchain,
    source: &Source,
    order: &Order,
    say: &mut dyn FnMut(&str),
) -> Result<Vec<Built>> {
    let workspace = Workspace::find(root, targets)?;
    let mut built = Vec::new();
    for target in targets {
        say(&format!("building {} program(s) for {}", programs.len(), target.triple));
        let folder = compile::build(&workspace, programs, *target, toolchain, source, &order.profile)?;
        let binaries = programs::read(&folder, programs, *target)?;
        for binary in &binaries {
            let said = programs::said(&binary.bytes, VERSION);
            if source.commit.clone().map(Said::Commit) != Some(said) {
                bail!("{} does not say its version and commit", binary.program.name);
            }
        }
        built.push((*target, binaries));
    }
    Ok(built)
}

struct Release<'a> {
    order: &'a Order,
    root: &'a Path,
    source: &'a Source,
    programs: &'a [Program],
}

/// An image as it is signed: its file's name without an end, its repository and its digest.
struct Named {
    file: String,
    repository: String,
    digest: String,
}

impl Release<'_> {
    fn tag(&self) -> String {
        self.order.tag.clone().unwrap_or_else(|| format!("v{VERSION}"))
    }

    /// Programs, images, the Debian package and the bills of materials.
    fn files(&self, built: &[Built], folder: &mut Folder, say: &mut dyn FnMut(&str)) -> Result<Vec<Named>> {
        let linked = self.linked(built, say)?;
        for (target, binaries) in built {
            for binary in binaries {
                folder.add(
                    &format!("{}/{}", target.platform(), binary.program.name),
                    &binary.bytes,
                    0o755,
                )?;
            }
        }
        let images = self.images(built, linked.as_ref(), folder)?;
        say(&format!("{} image archive(s)", images.len()));
        let about = deb::About {
            version: VERSION.to_owned(),
            revision: self.source.commit.clone(),
            maintainer: self.order.maintainer.clone(),
            source: self.order.source.clone(),
            time: self.source.time,
        };
        if OF_DEBIAN.iter().all(|name| self.programs.iter().any(|program| program.name == *name)) {
            for (target, binaries) in built {
                let name = deb::file_name(&about, *target);
                let licenses =
                    linked.as_ref().map(|linked| linked.licenses(*target, &OF_DEBIAN)).transpose()?;
                folder.add(&name, &deb::package(binaries, *target, &about, licenses.as_deref())?, 0o644)?;
                say(&format!("Debian package {name}"));
            }
        }
        if let Some(linked) = &linked {
            for (target, binaries) in built {
                let names: Vec<&str> = binaries.iter().map(|binary| binary.program.name).collect();
                let licenses = linked.licenses(*target, &names)?;
                folder.add(&format!("{}/licenses.txt", target.platform()), &licenses, 0o644)?;
                for binary in binaries {
                    let graph = linked.graph(*target)?;
                    let bill = sbom::bill(binary, graph, &linked.about, VERSION, self.source.time)?;
                    let name = format!("sbom/{}_{}.cdx.json", binary.program.name, target.platform());
                    folder.add(&name, &bill, 0o644)?;
                }
            }
            say("licences and bills of materials");
        }
        Ok(images)
    }

    fn images(&self, built: &[Built], linked: Option<&Linked>, folder: &mut Folder) -> Result<Vec<Named>> {
        let tag = self.tag();
        let labels = Labels {
            version: tag.strip_prefix('v').unwrap_or(&tag).to_owned(),
            revision: self.source.commit.clone(),
            source: self.order.source.clone(),
            licenses: LICENSE.to_owned(),
            time: self.source.time,
        };
        let (mut named, mut list) = (Vec::new(), String::new());
        for part in parts::whole(self.programs) {
            let repository = format!("{}/{}", self.order.repository, part.image);
            let mut archives: Vec<(String, Vec<Image>)> = Vec::new();
            for (target, binaries) in built {
                let licenses = linked.map(|linked| linked.licenses(*target, part.programs)).transpose()?;
                let image = Image::new(part, binaries, *target, &labels, licenses.as_deref())?;
                archives.push((target.platform(), vec![image]));
            }
            if archives.len() > 1 {
                let all = archives.iter().flat_map(|(_, images)| images.clone()).collect();
                archives.push(("all".to_owned(), all));
            }
            for (platform, images) in archives {
                let file = format!("{}_{tag}_{platform}", part.image);
                let (archive, digest) = image::archive(&images, &repository, &tag, self.source.time)?;
                folder.add(&format!("images/{file}.tar"), &archive, 0o644)?;
                list.push_str(&format!("{digest}  {}:{tag}  {platform}\n", image::full_name(&repository)));
                named.push(Named { file, repository: repository.clone(), digest });
            }
        }
        if !named.is_empty() {
            folder.add("images/digests.txt", list.as_bytes(), 0o644)?;
        }
        Ok(named)
    }

    /// What is linked into the programs, where they are known to be of the sources here.
    fn linked(&self, built: &[Built], say: &mut dyn FnMut(&str)) -> Result<Option<Linked>> {
        if self.order.binaries.is_some() {
            let told = Told { allow_dirty: true, epoch: Some("0".to_owned()), ..Told::default() };
            let here = source::find(self.root, &told).ok().and_then(|source| source.commit);
            if here.is_none() || here != self.source.commit {
                say("no licences and bills of materials: the programs are not of the sources here");
                return Ok(None);
            }
        }
        let targets: Vec<Target> = built.iter().map(|(target, _)| *target).collect();
        let workspace = Workspace::find(self.root, &targets)?;
        let about = crates::about(&workspace)?;
        let graphs = built
            .iter()
            .map(|(target, _)| Ok((target.triple, crates::graph(&workspace, self.programs, *target)?)))
            .collect::<Result<_>>()?;
        Ok(Some(Linked { about, graphs }))
    }

    fn provenance(&self, toolchain: Option<&Toolchain>, built: &[Built], folder: &mut Folder) -> Result<()> {
        let lock = self.root.join("Cargo.lock");
        let lock = std::fs::read(&lock).with_context(|| format!("cannot read {}", lock.display()))?;
        let given = if toolchain.is_some() {
            Vec::new()
        } else {
            let all = built.iter().flat_map(|(_, binaries)| binaries);
            all.map(|binary| (binary.program.name.to_owned(), binary.sha256())).collect()
        };
        let names: Vec<&str> = self.programs.iter().map(|program| program.name).collect();
        let targets: Vec<&str> = built.iter().map(|(target, _)| target.triple).collect();
        let statement = Provenance {
            subjects: &folder.sums(),
            source: self.source,
            repository: self.order.source.as_deref(),
            lock: &hex::encode(Sha256::digest(&lock)),
            parameters: json!({
                "programs": names, "targets": targets, "profile": self.order.profile,
                "repository": self.order.repository, "tag": self.tag(), "version": VERSION,
                "revision": self.source.commit, "source": self.order.source,
            }),
            builder: &self.order.builder_id,
            toolchain,
            given: &given,
        };
        folder.add(PROVENANCE, &statement.statement()?, 0o644)
    }

    fn sign(&self, signer: &Signer, images: &[Named], folder: &Folder) -> Result<()> {
        let write = |name: &str, bytes: &[u8]| folder.write(&format!("signatures/{name}"), bytes, 0o644);
        write("key.pub", &signer.public_key())?;
        write(&format!("{SUMS}.sig"), signer.sign(folder.list().as_bytes())?.as_bytes())?;
        write("provenance.dsse.json", &signer.envelope(&folder.read(PROVENANCE)?)?)?;
        for image in images {
            let payload = cosign::simple_signing(&image.repository, &image.digest)?;
            let signature = signer.sign(&payload)?;
            let archive = cosign::archive(&payload, &signature, &image.repository, &image.digest)?;
            write(&format!("{}.sig.tar", image.file), &archive)?;
        }
        Ok(())
    }
}

const PROVENANCE: &str = "provenance.json";

/// The crates of the programs, for each kind of machine.
struct Linked {
    about: BTreeMap<Id, crates::About>,
    graphs: BTreeMap<&'static str, Graph>,
}

impl Linked {
    fn graph(&self, target: Target) -> Result<&Graph> {
        self.graphs.get(target.triple).context("a target without its crates")
    }

    /// The licences of what is linked into these programs.
    fn licenses(&self, target: Target, names: &[&str]) -> Result<Vec<u8>> {
        let graph = self.graph(target)?;
        let programs = PROGRAMS.iter().filter(|program| names.contains(&program.name));
        notices::texts(programs.flat_map(|program| graph.linked(program.package)), &self.about)
    }
}
