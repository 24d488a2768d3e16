//! A service's methods, and the messages that belong to each.

use std::fmt;
use std::marker::PhantomData;

/// A method, called with a `Q` and answered with an `A`.
pub struct Method<Q, A> {
    path: &'static str,
    messages: PhantomData<fn(Q) -> A>,
}

impl<Q, A> Method<Q, A> {
    /// The method at `path`, which is `/package.Service/Method`. Better written by [`methods!`](crate::methods).
    pub const fn new(path: &'static str) -> Self {
        Method { path, messages: PhantomData }
    }

    /// Its path.
    pub const fn path(self) -> &'static str {
        self.path
    }

    /// Its name within its service.
    pub fn name(self) -> &'static str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

impl<Q, A> Clone for Method<Q, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Q, A> Copy for Method<Q, A> {}

impl<Q, A> fmt::Debug for Method<Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Method").field(&self.path).finish()
    }
}

/// Declares methods of one service as constants, in the words of its interface file, with which [`undeclared`](crate::undeclared) compares them:
///
/// ```
/// mod plugins {
///     #[derive(Clone, PartialEq, prost::Message)]
///     pub struct Empty {}
///
///     unixgrpc::methods! {
///         /// Device plugins.
///         pub mod device_plugin = "v1beta1.DevicePlugin" {
///             OPTIONS = GetDevicePluginOptions(Empty) returns (Empty);
///         }
///     }
/// }
/// assert_eq!(plugins::device_plugin::OPTIONS.path(), "/v1beta1.DevicePlugin/GetDevicePluginOptions");
/// ```
#[macro_export]
macro_rules! methods {
    ($(#[$doc:meta])* $visibility:vis mod $module:ident = $service:literal {
        $($constant:ident = $method:ident($request:ident) returns ($answer:ident);)*
    }) => {
        $(#[$doc])*
        #[allow(unreachable_pub)]
        $visibility mod $module {
            use super::*;
            $(
                #[doc = concat!("`", stringify!($method), "`.")]
                pub const $constant: $crate::Method<$request, $answer> =
                    $crate::Method::new(concat!("/", $service, "/", stringify!($method)));
            )*
            /// Each of them as its interface file has it.
            #[allow(dead_code)]
            pub const DECLARED: &[&str] = &[
                $(concat!("rpc ", stringify!($method), "(", stringify!($request), ") returns (", stringify!($answer), ")"),)*
            ];
        }
    };
}

/// Which of `methods` ([`methods!`](crate::methods)'s `DECLARED`) the service `service` of an interface file does not have so. For
/// tests.
pub fn undeclared<'a>(interface: &str, service: &str, methods: &[&'a str]) -> Vec<&'a str> {
    let one_line = interface.split_whitespace().collect::<Vec<_>>().join(" ");
    let block = one_line.split_once(&format!("service {service} {{")).map_or("", |(_, after)| after);
    // Options of a method are in braces of their own.
    let block = block.replace("{}", "");
    let block = block.split('}').next().unwrap_or_default().replace("returns (stream ", "returns (");
    methods.iter().copied().filter(|method| !block.contains(method)).collect()
}

#[cfg(test)]
mod tests {
    use super::undeclared;

    #[test]
    fn what_an_interface_does_not_have_so_is_found() {
        let interface = "service A { rpc M(Q) returns (R) {} rpc N(Q)\n returns (stream S); }\nservice B { rpc O(Q) returns (R); }";
        let methods = ["rpc M(Q) returns (R)", "rpc N(Q) returns (S)"];
        assert!(undeclared(interface, "A", &methods).is_empty());
        assert_eq!(undeclared(interface, "A", &["rpc O(Q) returns (R)"]), ["rpc O(Q) returns (R)"]);
        assert_eq!(undeclared(interface, "A", &["rpc M(Q) returns (S)"]), ["rpc M(Q) returns (S)"]);
        assert_eq!(undeclared(interface, "C", &methods), methods);
    }
}
