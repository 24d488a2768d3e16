//! Server reflection, v1 and v1alpha: tools such as `grpcurl` ask a server what it serves, and need no interface file.
//!
//! The descriptors are those that the messages were generated from. Extensions are what no interface here has.

use prost::Message;
use prost::bytes::Bytes;

/// Both versions: their messages are the same, and older tools know the older one alone.
const PATHS: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];
/// gRPC's `NOT_FOUND`.
const NOT_FOUND: i32 = 5;

/// What is told of a server's services.
#[derive(Debug)]
pub struct Interface {
    descriptors: &'static [u8],
    services: &'static [&'static str],
}

impl Interface {
    /// `descriptors`: an encoded `FileDescriptorSet` of all files, imported ones too. `services`: the full names of those that the server
    /// has.
    pub const fn new(descriptors: &'static [u8], services: &'static [&'static str]) -> Interface {
        Interface { descriptors, services }
    }

    /// Whether a call of this path asks for it.
    pub(crate) fn is_asked_at(path: &str) -> bool {
        PATHS.contains(&path)
    }

    /// The answer to one question.
    pub(crate) fn answer(&self, question: Question) -> Answer {
        let found = match &question.what {
            Some(What::ListServices(_)) => Found::Services(Services {
                service: self.services.iter().map(|name| Service { name: (*name).to_owned() }).collect(),
            }),
            Some(What::FileByFilename(name)) => self.file(name, |file| file.name == *name),
            Some(What::FileContainingSymbol(symbol)) => self.file(symbol, |file| file.has(symbol)),
            Some(What::AllExtensionNumbersOfType(name)) => missing(name),
            Some(What::FileContainingExtension(_)) | None => missing("extension"),
        };
        Answer { valid_host: question.host.clone(), original_request: Some(question), found: Some(found) }
    }

    fn file(&self, what: &str, is_it: impl Fn(&File) -> bool) -> Found {
        let set = FileSet::decode(self.descriptors).unwrap_or_default();
        let is_it = |bytes: &Vec<u8>| File::decode(bytes.as_slice()).is_ok_and(|file| is_it(&file));
        match set.file.into_iter().find(is_it) {
            Some(file) => Found::Files(Files { file_descriptor_proto: vec![file] }),
            None => missing(what),
        }
    }
}

fn missing(what: &str) -> Found {
    Found::Error(Failed { error_code: NOT_FOUND, error_message: format!("not found: {what}") })
}

/// Of a `google.protobuf.FileDescriptorSet` the files, as they are.
#[derive(Clone, PartialEq, Message)]
struct FileSet {
    #[prost(bytes = "vec", repeated, tag = "1")]
    file: Vec<Vec<u8>>,
}

/// Of a `google.protobuf.FileDescriptorProto` the names.
#[derive(Clone, PartialEq, Message)]
struct File {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    package: String,
    #[prost(message, repeated, tag = "4")]
    message: Vec<MessageType>,
    #[prost(message, repeated, tag = "5")]
    enumeration: Vec<Named>,
    #[prost(message, repeated, tag = "6")]
    service: Vec<ServiceType>,
}

#[derive(Clone, PartialEq, Message)]
struct MessageType {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "3")]
    nested: Vec<MessageType>,
    #[prost(message, repeated, tag = "4")]
    enumeration: Vec<Named>,
}

#[derive(Clone, PartialEq, Message)]
struct ServiceType {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    method: Vec<Named>,
}

#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

/// What is left of a symbol within something of this name: `None` when it lies elsewhere, empty when it is that.
fn within<'a>(symbol: &'a str, name: &str) -> Option<&'a str> {
    match symbol.strip_prefix(name)? {
        "" => Some(""),
        rest => rest.strip_prefix('.'),
    }
}

fn is_one(symbol: &str, names: &[Named]) -> bool {
    names.iter().any(|named| named.name == symbol)
}

impl File {
    /// Whether it has the symbol, a full name.
    fn has(&self, symbol: &str) -> bool {
        let symbol = if self.package.is_empty() { Some(symbol) } else { within(symbol, &self.package) };
        let Some(symbol) = symbol.filter(|symbol| !symbol.is_empty()) else { return false };
        let of_service = |service: &ServiceType| {
            within(symbol, &service.name).is_some_and(|rest| rest.is_empty() || is_one(rest, &service.method))
        };
        is_one(symbol, &self.enumeration)
            || self.service.iter().any(of_service)
            || self.message.iter().any(|message| message.has(symbol))
    }
}

impl MessageType {
    fn has(&self, symbol: &str) -> bool {
        within(symbol, &self.name).is_some_and(|rest| {
            rest.is_empty()
                || is_one(rest, &self.enumeration)
                || self.nested.iter().any(|nested| nested.has(rest))
        })
    }
}

/// `ServerReflectionRequest`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Question {
    #[prost(string, tag = "1")]
    host: String,
    #[prost(oneof = "What", tags = "3, 4, 5, 6, 7")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    #[prost(string, tag = "3")]
    FileByFilename(String),
    #[prost(string, tag = "4")]
    FileContainingSymbol(String),
    #[prost(message, tag = "5")]
    FileContainingExtension(Extension),
    #[prost(string, tag = "6")]
    AllExtensionNumbersOfType(String),
    #[prost(string, tag = "7")]
    ListServices(String),
}

#[derive(Clone, PartialEq, Message)]
struct Extension {
    #[prost(string, tag = "1")]
    containing_type: String,
    #[prost(int32, tag = "2")]
    extension_number: i32,
}

/// `ServerReflectionResponse`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Answer {
    #[prost(string, tag = "1")]
    valid_host: String,
    #[prost(message, optional, tag = "2")]
    original_request: Option<Question>,
    #[prost(oneof = "Found", tags = "4, 6, 7")]
    found: Option<Found>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Found {
    #[prost(message, tag = "4")]
    Files(Files),
    #[prost(message, tag = "6")]
    Services(Services),
    #[prost(message, tag = "7")]
    Error(Failed),
}

#[derive(Clone, PartialEq, Message)]
struct Files {
    #[prost(bytes = "vec", repeated, tag = "1")]
    file_descriptor_proto: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Services {
    #[prost(message, repeated, tag = "1")]
    service: Vec<Service>,
}

#[derive(Clone, PartialEq, Message)]
struct Service {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
struct Failed {
    #[prost(int32, tag = "1")]
    error_code: i32,
    #[prost(string, tag = "2")]
    error_message: String,
}

/// The answer to one question, both as bytes.
pub(crate) fn answered(interface: &Interface, question: &Bytes) -> Result<Bytes, tonic::Status> {
    let question = crate::bytes_codec::decoded(question)?;
    Ok(crate::bytes_codec::encoded(&interface.answer(question)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with a service and messages, one within another, as a compiler would describe it.
    fn interface() -> Interface {
        let named = |name: &str| Named { name: name.to_owned() };
        let file = File {
            name: "a.proto".to_owned(),
            package: "a.v1".to_owned(),
            message: vec![MessageType {
                name: "Outer".to_owned(),
                nested: vec![MessageType { name: "Inner".to_owned(), ..MessageType::default() }],
                enumeration: vec![named("Kind")],
            }],
            enumeration: vec![named("State")],
            service: vec![ServiceType { name: "Api".to_owned(), method: vec![named("Call")] }],
        };
        let other = File { name: "b.proto".to_owned(), package: "b".to_owned(), ..File::default() };
        let set = FileSet { file: vec![other.encode_to_vec(), file.encode_to_vec()] };
        Interface::new(set.encode_to_vec().leak(), &["a.v1.Api"])
    }

    #[test]
    fn a_tool_finds_the_services_and_the_files_of_what_they_name() {
        let interface = interface();
        let ask = |what: What| {
            let question = Question { host: "h".to_owned(), what: Some(what) };
            let answer = answered(&interface, &question.encode_to_vec().into()).unwrap();
            let answer = Answer::decode(answer).unwrap();
            assert_eq!((answer.valid_host.as_str(), answer.original_request), ("h", Some(question)));
            answer.found.unwrap()
        };
        let Found::Services(services) = ask(What::ListServices(String::new())) else { panic!() };
        assert_eq!(services.service, [Service { name: "a.v1.Api".to_owned() }]);
        let file = |found: Found| match found {
            Found::Files(files) => Ok(File::decode(files.file_descriptor_proto[0].as_slice()).unwrap().name),
            Found::Error(failed) => Err(failed.error_code),
            Found::Services(_) => panic!(),
        };
        for symbol in
            ["a.v1.Api", "a.v1.Api.Call", "a.v1.Outer", "a.v1.Outer.Inner", "a.v1.Outer.Kind", "a.v1.State"]
        {
            assert_eq!(
                file(ask(What::FileContainingSymbol(symbol.to_owned()))).as_deref(),
                Ok("a.proto"),
                "{symbol}"
            );
        }
        for symbol in ["a.v1", "a.v1.Ap", "a.v1.Api.Other", "a.v1.Outer.Other", "v1.Api", ""] {
            assert_eq!(file(ask(What::FileContainingSymbol(symbol.to_owned()))), Err(NOT_FOUND), "{symbol}");
        }
        assert_eq!(file(ask(What::FileByFilename("b.proto".to_owned()))).as_deref(), Ok("b.proto"));
        assert_eq!(file(ask(What::FileByFilename("c.proto".to_owned()))), Err(NOT_FOUND));
        assert_eq!(file(ask(What::AllExtensionNumbersOfType("a.v1.Outer".to_owned()))), Err(NOT_FOUND));
        assert!(answered(&interface, &Bytes::from_static(b"\xff\xff")).is_err());
    }
}
