//! As whom our programs call by HTTP where it matters who calls: what speaks in the words of somebody who may only write an object does
//! nothing at a mapper's REST interface, which has no login. Nobody else calls himself so, and no object can change it.

/// How `edgecore` begins its `User-Agent` where a rule of devices has it call something.
pub const RULES: &str = "edgecore-rules";
/// How the mapper of devices that speak HTTP begins its own, where a Device has it call something.
pub const HTTP_MAPPER: &str = "kubehive-http-mapper";
/// How the mapper of cameras begins its own.
pub const ONVIF_MAPPER: &str = "kubehive-onvif-mapper";
