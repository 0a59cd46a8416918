//! What the kernel's connection tracking is asked about one connection, and what it answers; without I/O. Own code, since
//! the crate for these messages needs old versions of others, and cannot read an answer of which it does not know a part.

use std::{io, net::SocketAddr};

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable as _, NLA_F_NESTED, NLA_HEADER_SIZE, NLM_F_REQUEST,
    NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable, NlasIterator,
    parse_ip, parse_u16_be,
};
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};

/// `NFNL_SUBSYS_CTNETLINK`, shifted as types have it, with `IPCTNL_MSG_CT_GET`:
/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/netfilter/nfnetlink_conntrack.h>
const GET: u16 = 1 << 8 | 1;
/// The same with `IPCTNL_MSG_CT_NEW`: what is tracked.
const TRACKED: u16 = 1 << 8;
/// Bytes of `struct nfgenmsg`: the family, then three that are 0.
const HEAD: usize = 4;

/// `CTA_TUPLE_ORIG` and `CTA_TUPLE_REPLY`: the ends as the opener's packets have them, and as the answers do.
const ORIGINAL: [u16; 1] = [1];
const REPLY: [u16; 1] = [2];
/// `CTA_TUPLE_IP` and `CTA_TUPLE_PROTO` there.
const ADDRESSES: [u16; 1] = [1];
const PORTS: [u16; 1] = [2];
/// `CTA_IP_V4_SRC` or `CTA_IP_V6_SRC`, and the same of destinations.
const SOURCE_ADDRESS: [u16; 2] = [1, 3];
const DESTINATION_ADDRESS: [u16; 2] = [2, 4];
/// `CTA_PROTO_NUM`, `CTA_PROTO_SRC_PORT` and `CTA_PROTO_DST_PORT`.
const PROTOCOL: u16 = 1;
const SOURCE_PORT: [u16; 1] = [2];
const DESTINATION_PORT: [u16; 1] = [3];

/// Both ends of a connection, as packets of one direction have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Who sends.
    pub source: SocketAddr,
    /// To whom.
    pub destination: SocketAddr,
}

/// What is known about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Somebody else than its destination answers.
    Translated(SocketAddr),
    /// Its destination does.
    Untranslated,
    /// Nothing.
    Untracked,
}

/// The question about the connection that was opened between these ends.
pub fn question(ends: &Ends, sequence: u32) -> Vec<u8> {
    let (source, destination) = (ends.source, ends.destination);
    let (family, version) = if source.is_ipv4() { (AF_INET, 0) } else { (AF_INET6, 1) };
    let addresses = [
        DefaultNla::new(SOURCE_ADDRESS[version], octets(source)),
        DefaultNla::new(DESTINATION_ADDRESS[version], octets(destination)),
    ];
    let ports = [
        DefaultNla::new(PROTOCOL, vec![IPPROTO_TCP]),
        DefaultNla::new(SOURCE_PORT[0], source.port().to_be_bytes().into()),
        DefaultNla::new(DESTINATION_PORT[0], destination.port().to_be_bytes().into()),
    ];
    let tuple = nested(ORIGINAL[0], &[nested(ADDRESSES[0], &addresses), nested(PORTS[0], &ports)]);
    let mut body = vec![family, 0, 0, 0];
    body.extend(emitted(&[tuple]));
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(Message { kind: GET, body }));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Reads what came in answer to that question.
///
/// # Errors
/// When the kernel refuses, or it is no answer to it.
pub fn read(answer: &[u8], asked: &Ends, sequence: u32) -> io::Result<Answer> {
    let message: NetlinkMessage<Message> = NetlinkMessage::deserialize(answer).map_err(io::Error::other)?;
    match message.payload {
        _ if message.header.sequence_number != sequence => {
            Err(io::Error::other("an answer to another question"))
        }
        NetlinkPayload::InnerMessage(Message { kind: TRACKED, body }) => {
            tracked(&body, asked).map_err(io::Error::other)
        }
        NetlinkPayload::Error(error) => match error.raw_code().saturating_abs() {
            libc::ENOENT => Ok(Answer::Untracked),
            code => Err(io::Error::from_raw_os_error(code)),
        },
        _ => Err(io::Error::other("no answer to what was asked")),
    }
}

fn tracked(body: &[u8], asked: &Ends) -> Result<Answer, DecodeError> {
    let attributes = body.get(HEAD..).unwrap_or_default();
    // The kernel looks in both directions: these may be the ends of another connection's answers.
    if ends(value(attributes, &ORIGINAL)?)? != *asked {
        return Ok(Answer::Untracked);
    }
    let answering = ends(value(attributes, &REPLY)?)?.source;
    Ok(if answering == asked.destination { Answer::Untranslated } else { Answer::Translated(answering) })
}

fn ends(tuple: &[u8]) -> Result<Ends, DecodeError> {
    let (addresses, ports) = (value(tuple, &ADDRESSES)?, value(tuple, &PORTS)?);
    let end = |address: &[u16], port: &[u16]| -> Result<SocketAddr, DecodeError> {
        Ok(SocketAddr::new(parse_ip(value(addresses, address)?)?, parse_u16_be(value(ports, port)?)?))
    };
    Ok(Ends {
        source: end(&SOURCE_ADDRESS, &SOURCE_PORT)?,
        destination: end(&DESTINATION_ADDRESS, &DESTINATION_PORT)?,
    })
}

/// The value of the first attribute of one of these kinds.
fn value<'a>(attributes: &'a [u8], kinds: &[u16]) -> Result<&'a [u8], DecodeError> {
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        let length = attribute.length().into();
        if kinds.contains(&attribute.kind()) {
            return Ok(attribute.into_inner().get(NLA_HEADER_SIZE..length).unwrap_or_default());
        }
    }
    Err(DecodeError::from("an attribute is missing"))
}

fn octets(end: SocketAddr) -> Vec<u8> {
    match end {
        SocketAddr::V4(end) => end.ip().octets().into(),
        SocketAddr::V6(end) => end.ip().octets().into(),
    }
}

fn nested(kind: u16, inner: &[DefaultNla]) -> DefaultNla {
    DefaultNla::new(kind | NLA_F_NESTED, emitted(inner))
}

fn emitted(attributes: &[DefaultNla]) -> Vec<u8> {
    let mut bytes = vec![0; attributes.buffer_len()];
    attributes.emit(&mut bytes);
    bytes
}

/// A message of netfilter as it is.
#[derive(Debug)]
struct Message {
    kind: u16,
    body: Vec<u8>,
}

impl NetlinkSerializable for Message {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.body.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.body);
    }
}

impl NetlinkDeserializable for Message {
    type Error = std::convert::Infallible;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, Self::Error> {
        Ok(Self { kind: header.message_type, body: payload.to_owned() })
    }
}

impl From<Message> for NetlinkPayload<Message> {
    fn from(message: Message) -> Self {
        Self::InnerMessage(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEQUENCE: u32 = 7;

    fn ends(source: &str, destination: &str) -> Ends {
        let end = |text: &str| text.parse().expect("an address and a port");
        Ends { source: end(source), destination: end(destination) }
    }

    fn v4() -> (Vec<u8>, Ends) {
        let answer = include_bytes!("../../../../fuzz/corpus/netlink/translated");
        (answer.to_vec(), ends("10.244.1.7:59134", "10.96.0.10:80"))
    }

    fn v6() -> (Vec<u8>, Ends) {
        let answer = include_bytes!("../../../../fuzz/corpus/netlink/translated_v6");
        (answer.to_vec(), ends("[fd00:244::7]:33710", "[fd00:96::10]:80"))
    }

    fn translated(to: &str) -> Answer {
        Answer::Translated(to.parse().expect("an address and a port"))
    }

    /// As the kernel answered it, of two connections to services of 10.244.1.7:8080 and [fd00:244::7]:8080.
    #[test]
    fn who_answers_is_told() {
        let ((v4, asked), (v6, asked_v6)) = (v4(), v6());
        assert_eq!(read(&v4, &asked, SEQUENCE).expect("an answer"), translated("10.244.1.7:8080"));
        assert_eq!(read(&v6, &asked_v6, SEQUENCE).expect("an answer"), translated("[fd00:244::7]:8080"));
    }

    #[test]
    fn a_connection_that_is_not_translated_is_answered_by_its_destination() {
        let (mut answer, asked) = v4();
        let (backend, service) = ([10, 244, 1, 7], [10, 96, 0, 10]);
        // Who answers is the last source, with the last port before the destination's.
        let at = answer.windows(4).rposition(|bytes| bytes == backend).expect("the reply's destination");
        let at = answer[..at].windows(4).rposition(|bytes| bytes == backend).expect("the reply's source");
        answer[at..at + 4].copy_from_slice(&service);
        let at = answer.windows(2).rposition(|bytes| bytes == 8080_u16.to_be_bytes()).expect("its port");
        assert_eq!(read(&answer, &asked, SEQUENCE).expect("an answer"), translated("10.96.0.10:8080"));
        answer[at..at + 2].copy_from_slice(&80_u16.to_be_bytes());
        assert_eq!(read(&answer, &asked, SEQUENCE).expect("an answer"), Answer::Untranslated);
    }

    #[test]
    fn ends_of_anothers_answers_are_not_its_own() {
        let (answer, _) = v4();
        let reversed = ends("10.244.1.7:8080", "10.244.1.7:59134");
        assert_eq!(read(&answer, &reversed, SEQUENCE).expect("an answer"), Answer::Untracked);
    }

    #[test]
    fn refusals_are_told_apart() {
        let (_, asked) = v4();
        let refused = |code: i32| {
            let mut answer = include_bytes!("../../../../fuzz/corpus/netlink/refused").to_vec();
            answer[8..12].copy_from_slice(&SEQUENCE.to_ne_bytes());
            answer[16..20].copy_from_slice(&(-code).to_ne_bytes());
            read(&answer, &asked, SEQUENCE)
        };
        assert_eq!(refused(libc::ENOENT).expect("an answer"), Answer::Untracked);
        for code in [libc::EPERM, libc::EINVAL] {
            assert_eq!(refused(code).expect_err("a refusal").raw_os_error(), Some(code));
        }
    }

    #[test]
    fn another_questions_answer_is_none() {
        let (answer, asked) = v4();
        assert!(read(&answer, &asked, SEQUENCE + 1).is_err());
    }

    #[test]
    fn half_an_answer_is_none() {
        for (answer, asked) in [v4(), v6()] {
            // The rest is what nobody needs.
            let needed = answer.len() - 88;
            for length in 0..needed {
                let mut half = answer[..length].to_vec();
                if let Some(told) = half.first_chunk_mut() {
                    *told = u32::try_from(length).expect("short").to_ne_bytes();
                }
                assert!(read(&half, &asked, SEQUENCE).is_err(), "{length}");
            }
        }
    }

    #[test]
    fn a_question_names_both_ends() {
        for (_, asked) in [v4(), v6()] {
            let question = question(&asked, SEQUENCE);
            assert_eq!(question.len(), usize::from(question[0]));
            let body = &question[16..];
            assert_eq!(super::ends(value(&body[HEAD..], &ORIGINAL).expect("a tuple")).expect("ends"), asked);
        }
    }
}
