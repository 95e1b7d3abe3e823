//! Names that stand for numbers: looked up once, before the first row, and only where a name was written.

use std::net::IpAddr;

use super::error::{Error, Place};
use super::expr::{Address, Expr, Host, Port, Test};
use super::lexer::Lexer;
use super::text::Text;
use crate::model::Family;

/// Knows what names mean. What is not known comes back as the next thing to do.
pub trait Lookup {
    /// The addresses of a host.
    ///
    /// # Errors
    /// When there is none.
    fn host(&mut self, name: &str) -> Result<Vec<IpAddr>, String>;

    /// The TCP port of a service.
    ///
    /// # Errors
    /// When there is none.
    fn service(&mut self, name: &str) -> Result<u16, String>;

    /// The number of an interface.
    ///
    /// # Errors
    /// When there is none.
    fn interface(&mut self, name: &str) -> Result<u32, String>;

    /// The uid of a user.
    ///
    /// # Errors
    /// When there is none.
    fn user(&mut self, name: &str) -> Result<u32, String>;

    /// A cgroup's path from the root of the hierarchy, and its id, where that can be known.
    ///
    /// # Errors
    /// When there is none.
    fn cgroup(&mut self, path: &str) -> Result<(String, Option<u64>), String>;
}

/// Looks every name up. `texts` are where it was read, for errors.
pub(super) fn resolve(expr: Expr, texts: &[Text], lookup: &mut dyn Lookup) -> Result<Expr, Error> {
    let mut each = |parts: Vec<Expr>| -> Result<Vec<Expr>, Error> {
        parts
            .into_iter()
            .map(|part| resolve(part, texts, lookup))
            .collect()
    };
    Ok(match expr {
        Expr::All(parts) => Expr::All(each(parts)?),
        Expr::Any(parts) => Expr::Any(each(parts)?),
        Expr::Not(inner) => resolve(*inner, texts, lookup)?.negated(),
        Expr::States(set) => Expr::States(set),
        Expr::Test(test) => looked_up(test, texts, lookup)?,
    })
}

fn looked_up(test: Test, texts: &[Text], lookup: &mut dyn Lookup) -> Result<Expr, Error> {
    let unknown = |what: &'static str, name: &str, hint: &String| {
        Error::unknown(place(texts, name), what, name, hint)
    };
    let port = |port: Port, lookup: &mut dyn Lookup| match port {
        Port::Service(name) => match lookup.service(&name) {
            Ok(number) => Ok(Port::Number(number)),
            Err(hint) => Err(unknown("service", &name, &hint)),
        },
        number => Ok(number),
    };
    Ok(Expr::Test(match test {
        Test::Host(end, host) => {
            let Host {
                family,
                address,
                port: own,
            } = host;
            let own = own.map(|own| port(own, lookup)).transpose()?;
            let made = |address| {
                Expr::Test(Test::Host(
                    end,
                    Host {
                        family,
                        address,
                        port: own.clone(),
                    },
                ))
            };
            let Address::Name(name) = address else {
                return Ok(made(address));
            };
            let found = lookup.host(&name);
            let found = found.map_err(|hint| unknown("host", &name, &hint))?;
            let of_family =
                |ip: &IpAddr| family.is_none_or(|family| (family == Family::Ipv4) == ip.is_ipv4());
            let each = found.into_iter().filter(of_family).map(|ip| {
                made(Address::Net {
                    bits: match ip {
                        IpAddr::V4(ip) => ip.to_ipv6_mapped().into(),
                        IpAddr::V6(ip) => ip.into(),
                    },
                    prefix: 128,
                    v4: ip.is_ipv4(),
                })
            });
            return Expr::any(each.collect()).ok_or_else(|| {
                let hint = "it has no address of this family".to_owned();
                unknown("host", &name, &hint)
            });
        }
        Test::Port(end, op, own) => Test::Port(end, op, port(own, lookup)?),
        Test::Device { name, .. } => match lookup.interface(&name) {
            Ok(index) => Test::Device {
                name,
                index: Some(index),
            },
            Err(hint) => return Err(unknown("interface", &name, &hint)),
        },
        Test::User { name, .. } => match lookup.user(&name) {
            Ok(uid) => Test::User {
                name,
                uid: Some(uid),
            },
            Err(hint) => return Err(unknown("user", &name, &hint)),
        },
        Test::Cgroup { path, .. } => match lookup.cgroup(&path) {
            Ok((path, id)) => Test::Cgroup { path, id },
            Err(hint) => return Err(unknown("cgroup", &path, &hint)),
        },
        other => other,
    }))
}

/// Where the name stands.
fn place(texts: &[Text], name: &str) -> Place {
    let found = texts.iter().find_map(|text| {
        Lexer::new(text.content()).find_map(|token| {
            let at = token.text().find(name)?;
            Some(text.place(token.part(at, name.len())))
        })
    });
    found.unwrap_or_else(|| Place::new("", "", 0..0))
}
