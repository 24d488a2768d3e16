//! What a tool such as `grpcurl` learns of edgecore's socket for mappers, over a real connection.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::rc::Rc;

use dmi::methods::INTERFACE;
use prost::Message;
use prost_types::FileDescriptorProto;
use tokio::net::{UnixListener, UnixStream};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request};
use unixgrpc::{Bounds, Call};

/// `ServerReflectionRequest`, as far as it is asked here.
#[derive(Clone, PartialEq, Message)]
struct Question {
    #[prost(string, optional, tag = "3")]
    file: Option<String>,
    #[prost(string, optional, tag = "4")]
    symbol: Option<String>,
    #[prost(string, optional, tag = "7")]
    services: Option<String>,
}

/// `ServerReflectionResponse`.
#[derive(Clone, PartialEq, Message)]
struct Answer {
    #[prost(message, optional, tag = "4")]
    files: Option<Files>,
    #[prost(message, optional, tag = "6")]
    services: Option<Services>,
}

#[derive(Clone, PartialEq, Message)]
struct Files {
    #[prost(bytes = "vec", repeated, tag = "1")]
    files: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct Services {
    #[prost(message, repeated, tag = "1")]
    services: Vec<Service>,
}

#[derive(Clone, PartialEq, Message)]
struct Service {
    #[prost(string, tag = "1")]
    name: String,
}

#[tokio::test]
async fn a_tool_finds_the_service_and_all_files_of_its_messages() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dmi.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let served = async {
        let calls: unixgrpc::Calls =
            Rc::new(|request| Call::new(request, dmi::MESSAGE_MAX).reflected(&INTERFACE));
        let (stream, _) = listener.accept().await.unwrap();
        unixgrpc::serve_connection(stream, Bounds::DEFAULT, calls).await;
    };
    let asked = async {
        let mut client =
            tonic::client::Grpc::new(unixgrpc::channel_by(move || UnixStream::connect(path.clone())));
        let mut ask = async |version: &str, questions: Vec<Question>| {
            client.ready().await.unwrap();
            let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
            let codec = tonic_prost::ProstCodec::<Question, Answer>::default();
            let stream = Request::new(tokio_stream::iter(questions));
            let path = PathAndQuery::try_from(path).unwrap();
            let mut answers = client.streaming(stream, path, codec).await?.into_inner();
            let mut all = Vec::new();
            while let Some(answer) = answers.message().await? {
                all.push(answer);
            }
            Ok::<_, tonic::Status>(all)
        };
        let questions = || {
            vec![
                Question { services: Some(String::new()), ..Question::default() },
                Question { symbol: Some("v1beta1.DeviceManagerService".to_owned()), ..Question::default() },
            ]
        };
        for version in ["v1", "v1alpha"] {
            let answers = ask(version, questions()).await.unwrap();
            let names: Vec<_> =
                answers[0].services.iter().flat_map(|own| &own.services).map(|own| &own.name).collect();
            assert_eq!(names, ["v1beta1.DeviceManagerService"]);
            let file = |answer: &Answer| {
                FileDescriptorProto::decode(answer.files.as_ref().unwrap().files[0].as_slice()).unwrap()
            };
            let own = file(&answers[1]);
            let service = own.service.iter().find(|own| own.name() == "DeviceManagerService").unwrap();
            assert!(service.method.iter().any(|method| method.name() == "MapperRegister"));
            assert!(own.source_code_info.is_none());
            // All that it is made of can be asked for.
            for imported in &own.dependency {
                let question = Question { file: Some(imported.clone()), ..Question::default() };
                assert_eq!(file(&ask(version, vec![question]).await.unwrap()[0]).name(), imported);
            }
            assert!(!own.dependency.is_empty());
        }
        let other = ask("v2", questions()).await.unwrap_err();
        assert_eq!(other.code(), Code::Unimplemented);
    };
    tokio::select! {
        () = served => panic!("the connection has ended"),
        () = asked => {}
    }
}
