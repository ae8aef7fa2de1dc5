// SPDX-License-Identifier: GPL-2.0-only

//! How a client proves that it knows the password.
//!
//! | Plugin | Without TLS | With TLS |
//! |---|---|---|
//! | `caching_sha2_password` | scramble; if the server asks, the password encrypted with its RSA key | scramble; if the server asks, the password |
//! | `sha256_password` | the password encrypted with the server's RSA key | the password |
//! | `mysql_native_password` | scramble | scramble |
//! | `mysql_clear_password` | refused | the password |
//!
//! A Unix socket is as good as TLS for `caching_sha2_password`. The server does not count a Unix
//! socket as such for `sha256_password`.

use mysql_common::auth::plugins::{caching_sha2_password, mysql_native_password};
use zeroize::Zeroizing;

use crate::answer::AuthenticationAnswer;
use crate::error::Error;
use crate::greeting::NONCE;
use crate::packets::Packets;
use crate::password_key;

/// How often a server may ask for another plugin.
const MAX_SWITCHES: usize = 2;

/// How many packets a server may send until the client is in or out.
const MAX_ANSWERS: usize = 8;

/// `caching_sha2_password`: the scramble was right.
const FAST: u8 = 3;
/// `caching_sha2_password`: the server needs the password.
const FULL: u8 = 4;
/// `caching_sha2_password`: asks for the RSA key.
const SHA2_KEY_REQUEST: u8 = 2;
/// `sha256_password`: asks for the RSA key.
const SHA256_KEY_REQUEST: u8 = 1;

/// What is known of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    /// TCP without TLS.
    Open,
    /// A Unix socket without TLS.
    Socket,
    Tls,
}

/// A plugin that this client has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plugin {
    CachingSha2,
    Sha256,
    Native,
    Clear,
}

impl Plugin {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "caching_sha2_password" => Self::CachingSha2,
            "sha256_password" => Self::Sha256,
            "mysql_native_password" => Self::Native,
            "mysql_clear_password" => Self::Clear,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::CachingSha2 => "caching_sha2_password",
            Self::Sha256 => "sha256_password",
            Self::Native => "mysql_native_password",
            Self::Clear => "mysql_clear_password",
        }
    }
}

/// One authentication.
pub(crate) struct Authentication<'a> {
    password: &'a str,
    channel: Channel,
    plugin: Plugin,
    nonce: Vec<u8>,
}

impl<'a> Authentication<'a> {
    /// Begins with the plugin of the server's greeting, or with another one if this client does not
    /// have that plugin, or would have to send the password in the clear: the server asks again.
    pub(crate) fn new(
        password: &'a str,
        channel: Channel,
        plugin: &str,
        nonce: [u8; NONCE],
    ) -> Self {
        let plugin = match Plugin::of(plugin) {
            None | Some(Plugin::Clear) => Plugin::CachingSha2,
            Some(plugin) => plugin,
        };
        Self { password, channel, plugin, nonce: nonce.into() }
    }

    /// The plugin's name.
    pub(crate) fn plugin(&self) -> &'static str {
        self.plugin.name()
    }

    /// What the client says first.
    pub(crate) fn first(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        let is_empty = self.password.is_empty();
        let password = self.password.as_bytes();
        Ok(Zeroizing::new(match self.plugin {
            Plugin::Clear if self.channel != Channel::Tls => {
                return Err(self.refused("would send the password in the clear: use TLS"));
            }
            Plugin::Clear => return Ok(self.terminated()),
            Plugin::CachingSha2 | Plugin::Sha256 if is_empty => vec![0],
            Plugin::Sha256 if self.channel == Channel::Tls => return Ok(self.terminated()),
            Plugin::Sha256 => vec![SHA256_KEY_REQUEST],
            Plugin::CachingSha2 => {
                let nonce = self.nonce[..]
                    .try_into()
                    .map_err(|_| Error::handshake("the server's nonce does not have 20 bytes"))?;
                caching_sha2_password::scramble_sha256(&nonce, password)
                    .map_or_else(Vec::new, Vec::from)
            }
            Plugin::Native => mysql_native_password::scramble_native(&self.nonce, password)
                .map_or_else(Vec::new, Vec::from),
        }))
    }

    /// Goes on until the server says yes or no.
    pub(crate) fn finish(&mut self, packets: &mut Packets) -> Result<(), Error> {
        let mut switches = 0;
        for _ in 0..MAX_ANSWERS {
            let packet = packets.receive()?.data;
            let answer = match AuthenticationAnswer::parse(packet)? {
                AuthenticationAnswer::Ok => return Ok(()),
                AuthenticationAnswer::Switch { plugin, data } => {
                    switches += 1;
                    if switches > MAX_SWITCHES {
                        return Err(Error::handshake(
                            "the server asks for one plugin after another",
                        ));
                    }
                    self.switch(plugin, data)?;
                    Some(self.first()?)
                }
                AuthenticationAnswer::More(data) => self.more(data)?,
            };
            if let Some(answer) = answer {
                packets.send(&[&answer])?;
            }
        }
        Err(Error::handshake("the server asks for more and more"))
    }

    fn switch(&mut self, plugin: String, data: &[u8]) -> Result<(), Error> {
        let Some(known) = Plugin::of(&plugin) else {
            let text = "cannot be loaded: this program does not have the plugin. Use an account \
                        with caching_sha2_password";
            return Err(Error::Authentication { number: 2059, plugin, text: text.into() });
        };
        self.plugin = known;
        if known != Plugin::Clear {
            if data.len() != NONCE {
                return Err(Error::handshake("the server's nonce does not have 20 bytes"));
            }
            self.nonce = data.to_vec();
        }
        Ok(())
    }

    /// Answers what the plugin's other side says.
    fn more(&self, data: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
        match (self.plugin, data) {
            (Plugin::CachingSha2, [FAST]) => Ok(None),
            (Plugin::CachingSha2, [FULL]) if self.channel != Channel::Open => {
                Ok(Some(self.terminated()))
            }
            (Plugin::CachingSha2, [FULL]) => Ok(Some(Zeroizing::new(vec![SHA2_KEY_REQUEST]))),
            (Plugin::CachingSha2, pem) if self.channel == Channel::Open => self.encrypted(pem),
            (Plugin::Sha256, pem) if self.channel != Channel::Tls => self.encrypted(pem),
            _ => Err(self.refused("reported error: the server's answer is unknown")),
        }
    }

    /// The password, mixed with the nonce and encrypted with the server's key.
    fn encrypted(&self, pem: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
        let mut mixed = self.terminated();
        mixed.iter_mut().zip(self.nonce.iter().cycle()).for_each(|(byte, mix)| *byte ^= mix);
        password_key::encrypt(&mixed, pem).map(|bytes| Some(Zeroizing::new(bytes)))
    }

    /// The password, ended by NUL.
    fn terminated(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([self.password.as_bytes(), &[0]].concat())
    }

    fn refused(&self, text: &str) -> Error {
        let plugin = self.plugin.name().into();
        Error::Authentication { number: 2061, plugin, text: text.into() }
    }
}
