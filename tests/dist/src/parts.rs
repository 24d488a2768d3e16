//! What there is to ship: which program comes from which crate, and which programs make an image.

/// A program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program {
    /// Its file's name.
    pub name: &'static str,
    /// The crate that has it.
    pub package: &'static str,
}

/// An image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The last part of its repository's name, KubeEdge's where KubeEdge has the image.
    pub image: &'static str,
    /// Its title (`org.opencontainers.image.title`), a sentence without an end.
    pub title: &'static str,
    /// Its programs, at [`FOLDER`]; the first is what it starts.
    pub programs: &'static [&'static str],
    /// Who it runs as: `uid:gid`.
    pub user: &'static str,
    /// It calls servers of others over TLS, by the CAs of the system that it runs on.
    pub needs_cas: bool,
}

/// Where programs lie in an image: KubeEdge's installation package has them there, and its users copy them from there.
pub const FOLDER: &str = "usr/local/bin";

/// In the namespace `kubeedge`, which enforces the Pod Security Standard `restricted`, nobody is root.
const NOBODY: &str = "65532:65532";
/// Mappers reach `dmi.sock` in a folder of root's, unless `dmiSockGroup` lets others in; their DaemonSets may say another.
const ROOT: &str = "0:0";

/// Every program that is shipped.
pub const PROGRAMS: [Program; 14] = [
    Program { name: "cloudcore", package: "cloud" },
    Program { name: "csidriver", package: "csidriver" },
    Program { name: "edgecore", package: "edge" },
    Program { name: "keadm", package: "keadm" },
    Program { name: "modbus-mapper", package: "modbus" },
    Program { name: "modbus-simulator", package: "modbus" },
    Program { name: "virtual-mapper", package: "virtualdevice" },
    Program { name: "http-mapper", package: "httpdevice" },
    Program { name: "mqtt-mapper", package: "mqttdevice" },
    Program { name: "opcua-mapper", package: "opcuadevice" },
    Program { name: "s7-mapper", package: "s7device" },
    Program { name: "can-mapper", package: "candevice" },
    Program { name: "bacnet-mapper", package: "bacnetdevice" },
    Program { name: "onvif-mapper", package: "onvifdevice" },
];

/// Every image.
pub const PARTS: [Part; 12] = [
    Part {
        image: "cloudcore",
        title: "KubeHive CloudCore",
        programs: &["cloudcore"],
        user: NOBODY,
        needs_cas: true,
    },
    Part {
        image: "csidriver",
        title: "KubeHive CSI driver",
        programs: &["csidriver"],
        user: NOBODY,
        needs_cas: false,
    },
    // It starts keadm: edgecore runs on the machine itself, into which the image's files are copied.
    Part {
        image: "installation-package",
        title: "KubeHive EdgeCore and keadm",
        programs: &["keadm", "edgecore"],
        user: ROOT,
        needs_cas: false,
    },
    mapper("modbus-mapper", "KubeHive mapper of Modbus devices", &["modbus-mapper"]),
    mapper("virtual-mapper", "KubeHive mapper of virtual devices", &["virtual-mapper"]),
    mapper("http-mapper", "KubeHive mapper of devices that speak HTTP", &["http-mapper"]),
    mapper("mqtt-mapper", "KubeHive mapper of devices that speak MQTT", &["mqtt-mapper"]),
    mapper("opcua-mapper", "KubeHive mapper of OPC UA devices", &["opcua-mapper"]),
    mapper("s7-mapper", "KubeHive mapper of Siemens S7 PLCs", &["s7-mapper"]),
    mapper("can-mapper", "KubeHive mapper of devices on a CAN bus", &["can-mapper"]),
    mapper("bacnet-mapper", "KubeHive mapper of BACnet/IP devices", &["bacnet-mapper"]),
    mapper("onvif-mapper", "KubeHive mapper of cameras that speak ONVIF", &["onvif-mapper"]),
];

const fn mapper(image: &'static str, title: &'static str, programs: &'static [&'static str]) -> Part {
    Part { image, title, programs, user: ROOT, needs_cas: true }
}

/// The programs of the Debian package, which is the edge machine's.
pub const OF_DEBIAN: [&str; 2] = ["edgecore", "keadm"];

/// The programs that `names` ask for, with those without which no image of theirs is whole; all for no name. A name is a program's or
/// an image's.
///
/// # Errors
/// Names what is neither.
pub fn chosen(names: &[String]) -> Result<Vec<Program>, String> {
    if names.is_empty() {
        return Ok(PROGRAMS.to_vec());
    }
    let mut wanted: Vec<&str> = Vec::new();
    for name in names {
        let parts = PARTS.iter().filter(|part| part.image == name || part.programs.contains(&name.as_str()));
        let before = wanted.len();
        wanted.extend(parts.flat_map(|part| part.programs));
        wanted.extend(PROGRAMS.iter().filter(|program| program.name == name).map(|program| program.name));
        if wanted.len() == before {
            let known: Vec<&str> = PROGRAMS.iter().map(|program| program.name).collect();
            return Err(format!("--only: there is no `{name}` here; there are {}", known.join(", ")));
        }
    }
    Ok(PROGRAMS.into_iter().filter(|program| wanted.contains(&program.name)).collect())
}

/// The images of which every program is among `programs`.
pub fn whole(programs: &[Program]) -> impl Iterator<Item = &'static Part> {
    let has = |name: &str| programs.iter().any(|program| program.name == name);
    PARTS.iter().filter(move |part| part.programs.iter().all(|name| has(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(of: &[&str]) -> Vec<&'static str> {
        let of: Vec<String> = of.iter().map(|name| (*name).to_owned()).collect();
        chosen(&of).unwrap().iter().map(|program| program.name).collect()
    }

    #[test]
    fn a_choice_brings_what_its_image_needs() {
        assert_eq!(names(&["edgecore"]), ["edgecore", "keadm"]);
        assert_eq!(names(&["installation-package", "keadm"]), ["edgecore", "keadm"]);
        assert_eq!(names(&["modbus-simulator"]), ["modbus-simulator"]);
        assert_eq!(names(&[]).len(), PROGRAMS.len());
        let error = chosen(&["edgcore".to_owned()]).unwrap_err();
        assert!(error.contains("`edgcore`") && error.contains("edgecore"), "{error}");
    }

    #[test]
    fn images_are_of_programs_that_there_are() {
        for part in PARTS {
            assert!(
                part.programs.iter().all(|name| PROGRAMS.iter().any(|program| program.name == *name)),
                "{}",
                part.image
            );
        }
        assert_eq!(whole(&chosen(&["modbus-mapper".to_owned()]).unwrap()).count(), 1);
        assert_eq!(whole(&chosen(&["modbus-simulator".to_owned()]).unwrap()).count(), 0);
        assert_eq!(whole(&PROGRAMS).count(), PARTS.len());
    }
}
