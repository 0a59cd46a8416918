//! Reads the kernel's type information (BTF) just far enough to find members and count arguments. Pure: bytes in,
//! numbers out; malformed input gives an error or `None`, never a panic.
//!
//! The crates that parse BTF build the whole type graph first: 150 ms and 85 MB for a kernel of today, more than the
//! agent itself may use. This walks the types once and keeps their positions.
//!
//! Format: <https://docs.kernel.org/bpf/btf.html>

use std::{
    collections::{HashMap, HashSet},
    ffi::{CStr, CString},
};

const MAGIC: u16 = 0xeb9f;
const HEADER_LENGTH: usize = 24;
const TYPE_LENGTH: usize = 12;
const MEMBER_LENGTH: usize = 12;
/// Unnamed structs and unions that are looked into, one inside the other; the kernel has a handful.
const MAX_NESTED: u32 = 32;

/// Why BTF could not be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    /// Not BTF, or another byte order.
    #[error("this is no BTF of this machine's byte order")]
    Magic,
    /// The data ends early or points outside itself.
    #[error("the BTF data is cut short or points outside itself")]
    Malformed,
    /// A kind of type that did not exist when this was written.
    #[error("the BTF data has types of unknown kind {0}")]
    Kind(u32),
}

/// The kinds that are told apart; numbers of the format.
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const PTR: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const FLOAT: u32 = 16;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// Type information over borrowed bytes.
#[derive(Debug)]
pub struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Where in `types` each type begins; type ids count from 1.
    positions: Vec<u32>,
    /// Where the first struct, or other name for a type, of each name begins.
    named: HashMap<(u32, &'a CStr), usize>,
}

#[derive(Clone, Copy)]
struct Type {
    name: u32,
    kind: u32,
    /// Number of members, parameters, ...
    length: u32,
    /// Member offsets carry a bit-field size in their upper byte.
    kind_flag: bool,
    /// The type it refers to (a size for those that refer to none).
    referred: u32,
    position: usize,
}

impl<'a> Btf<'a> {
    /// Walks all types once.
    pub fn parse(data: &'a [u8]) -> Result<Self, BtfError> {
        let magic = data.get(..2).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
        if magic != Some(MAGIC) {
            return Err(BtfError::Magic);
        }
        let header = |at| word(data, at).map(|word| word as usize).ok_or(BtfError::Malformed);
        let header_length = header(4)?;
        if header_length < HEADER_LENGTH {
            return Err(BtfError::Malformed);
        }
        let section = |offset: usize, length: usize| {
            let start = header_length.checked_add(offset)?;
            data.get(start..start.checked_add(length)?)
        };
        let types = section(header(8)?, header(12)?).ok_or(BtfError::Malformed)?;
        let strings = section(header(16)?, header(20)?).ok_or(BtfError::Malformed)?;
        let mut btf = Self { types, strings, positions: Vec::new(), named: HashMap::new() };
        let mut position = 0;
        while position < types.len() {
            let found = btf.at(position).ok_or(BtfError::Malformed)?;
            btf.positions.push(u32::try_from(position).map_err(|_| BtfError::Malformed)?);
            if matches!(found.kind, kind::STRUCT | kind::TYPEDEF)
                && let Some(name) = text(strings, found.name)
            {
                btf.named.entry((found.kind, name)).or_insert(position);
            }
            position += TYPE_LENGTH + trailing(found)?;
        }
        if position == types.len() { Ok(btf) } else { Err(BtfError::Malformed) }
    }

    /// Byte offset of a member, reached through nested and unnamed members; `None` when the kernel has none or it is a
    /// bit field.
    pub fn offset_of(&self, kernel_type: &str, path: &str) -> Option<u32> {
        let mut owner = self.find(kind::STRUCT, kernel_type)?;
        let mut bits = 0;
        for name in path.split('.') {
            let (member_type, member_bits) = self.member(owner, name, &mut HashSet::new(), MAX_NESTED)?;
            bits = member_bits.checked_add(bits)?;
            owner = self.resolve(member_type)?;
        }
        (bits % 8 == 0).then_some(bits / 8)
    }

    /// How many arguments a tracepoint hands to programs; `None` when the kernel has no such tracepoint.
    pub fn tracepoint_arguments(&self, tracepoint: &str) -> Option<u32> {
        let found = self.find(kind::TYPEDEF, &format!("btf_trace_{tracepoint}"))?;
        let pointer = self.by_id(found.referred)?;
        let prototype = self.by_id(pointer.referred)?;
        let is_prototype = pointer.kind == kind::PTR && prototype.kind == kind::FUNC_PROTO;
        // The first parameter is the tracepoint's own data.
        is_prototype.then(|| prototype.length.saturating_sub(1))
    }

    /// Whether the kernel has a function of this name.
    pub fn has_function(&self, name: &str) -> bool {
        self.has(kind::FUNC, name)
    }

    /// Whether the kernel has a struct of this name.
    pub fn has_struct(&self, name: &str) -> bool {
        self.find(kind::STRUCT, name).is_some()
    }

    /// Whether the kernel has a variable of this name for each processor: it tells of no other variables.
    pub fn has_variable(&self, name: &str) -> bool {
        self.has(kind::VAR, name)
    }

    fn has(&self, kind: u32, name: &str) -> bool {
        let mut types = self.positions.iter().filter_map(|position| self.at(*position as usize));
        types.any(|found| found.kind == kind && self.is_named(found.name, name))
    }

    fn find(&self, kind: u32, name: &str) -> Option<Type> {
        let name = CString::new(name).ok()?;
        self.at(*self.named.get(&(kind, name.as_c_str()))?)
    }

    fn by_id(&self, id: u32) -> Option<Type> {
        let position = self.positions.get(usize::try_from(id.checked_sub(1)?).ok()?)?;
        self.at(*position as usize)
    }

    /// The type behind names and qualifiers.
    fn resolve(&self, mut id: u32) -> Option<Type> {
        // Bounded by the number of types: a cycle ends as `None`.
        for _ in 0..self.positions.len() {
            let found = self.by_id(id)?;
            match found.kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    id = found.referred;
                }
                _ => return Some(found),
            }
        }
        None
    }

    /// A member's type and offset in bits, unnamed structs and unions included, at most so deep.
    fn member(
        &self,
        owner: Type,
        name: &str,
        visited: &mut HashSet<usize>,
        depth: u32,
    ) -> Option<(u32, u32)> {
        let deeper = depth.checked_sub(1)?;
        if !matches!(owner.kind, kind::STRUCT | kind::UNION) || !visited.insert(owner.position) {
            return None;
        }
        for index in 0..owner.length as usize {
            let at = owner.position + TYPE_LENGTH + index * MEMBER_LENGTH;
            let (member_name, member_type, raw) =
                (word(self.types, at)?, word(self.types, at + 4)?, word(self.types, at + 8)?);
            let (bits, bit_field) =
                if owner.kind_flag { (raw & 0x00ff_ffff, raw >> 24 != 0) } else { (raw, false) };
            if self.is_named(member_name, name) {
                return (!bit_field).then_some((member_type, bits));
            }
            if member_name == 0 {
                let inner = self.resolve(member_type)?;
                if let Some((found, inner_bits)) = self.member(inner, name, visited, deeper) {
                    return Some((found, bits.checked_add(inner_bits)?));
                }
            }
        }
        None
    }

    fn is_named(&self, offset: u32, name: &str) -> bool {
        text(self.strings, offset).is_some_and(|text| text.to_bytes() == name.as_bytes())
    }

    fn at(&self, position: usize) -> Option<Type> {
        let (words, _) = self.types.get(position..)?.first_chunk::<TYPE_LENGTH>()?.as_chunks();
        let [name, info, referred] = [words[0], words[1], words[2]].map(u32::from_ne_bytes);
        let (kind, length, kind_flag) = (info >> 24 & 0x1f, info & 0xffff, info >> 31 != 0);
        Some(Type { name, kind, length, kind_flag, referred, position })
    }
}

/// Bytes that follow a type's common part.
fn trailing(found: Type) -> Result<usize, BtfError> {
    let each = match found.kind {
        kind::INT | kind::VAR | kind::DECL_TAG => return Ok(4),
        kind::ARRAY => return Ok(12),
        kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12,
        kind::ENUM | kind::FUNC_PROTO => 8,
        // Pointers, forward declarations, names, qualifiers, functions, floats and tags have nothing more.
        kind::PTR..=kind::FLOAT | kind::TYPE_TAG => 0,
        unknown => return Err(BtfError::Kind(unknown)),
    };
    Ok(found.length as usize * each)
}

fn text(strings: &[u8], offset: u32) -> Option<&CStr> {
    CStr::from_bytes_until_nul(strings.get(offset as usize..)?).ok()
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `struct outer { int a; union { int b; struct inner in; }; }; struct inner { int x:3; int y; };` and
    /// `typedef void (*btf_trace_t)(void *, int)`.
    fn sample() -> Vec<u8> {
        let mut strings = vec![0];
        let mut name = |text: &str| {
            let at = u32::try_from(strings.len()).expect("short");
            strings.extend_from_slice(text.as_bytes());
            strings.push(0);
            at
        };
        let (int, outer, inner) = (name("int"), name("outer"), name("inner"));
        let (a, b, nested, x, y) = (name("a"), name("b"), name("in"), name("x"), name("y"));
        let trace = name("btf_trace_t");
        let info = |kind: u32, length: u32, flag: u32| flag << 31 | kind << 24 | length;
        let words = [
            vec![int, info(kind::INT, 0, 0), 4, 32],
            vec![inner, info(kind::STRUCT, 2, 1), 8, x, 1, 3 << 24, y, 1, 32],
            vec![0, info(kind::UNION, 2, 0), 8, b, 1, 0, nested, 2, 0],
            vec![outer, info(kind::STRUCT, 2, 0), 12, a, 1, 0, 0, 3, 32],
            vec![0, info(kind::FUNC_PROTO, 2, 0), 0, 0, 6, 0, 1],
            vec![0, info(kind::PTR, 0, 0), 5],
            vec![trace, info(kind::TYPEDEF, 0, 0), 6],
        ]
        .concat();
        let types: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut data = MAGIC.to_ne_bytes().to_vec();
        data.extend([1, 0]);
        let (types_length, strings_length) = (types.len(), strings.len());
        for number in [HEADER_LENGTH, 0, types_length, types_length, strings_length] {
            data.extend(u32::try_from(number).expect("small").to_ne_bytes());
        }
        data.extend(types);
        data.extend(strings);
        data
    }

    #[test]
    fn members_are_found_through_nested_and_unnamed_ones() {
        let data = sample();
        let btf = Btf::parse(&data).expect("well-formed");
        assert_eq!(btf.offset_of("outer", "a"), Some(0));
        assert_eq!(btf.offset_of("outer", "b"), Some(4));
        assert_eq!(btf.offset_of("outer", "in.y"), Some(8));
        assert_eq!(btf.offset_of("outer", "in.x"), None, "a bit field has no byte offset");
        assert_eq!(btf.offset_of("outer", "missing"), None);
        assert_eq!(btf.offset_of("missing", "a"), None);
        assert_eq!(btf.tracepoint_arguments("t"), Some(1));
        assert_eq!(btf.tracepoint_arguments("u"), None);
    }

    #[test]
    fn cut_short_or_foreign_data_is_refused() {
        let data = sample();
        assert_eq!(Btf::parse(b"ELF").err(), Some(BtfError::Magic));
        for length in 2..data.len() {
            assert!(Btf::parse(&data[..length]).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn neither_depth_nor_distance_is_trusted() {
        let word = |number: usize| u32::try_from(number).expect("small").to_ne_bytes();
        // As many unnamed structs one inside the other as the stack would never hold, each as far in as can be told.
        let count = 200_000;
        let nested = |id: usize| {
            let info = (kind::STRUCT << 24 | 1).to_ne_bytes();
            [word(1), info, word(8), word(0), word(id % count + 2), u32::MAX.to_ne_bytes()].concat()
        };
        let types: Vec<u8> = (0..count).flat_map(nested).collect();
        let strings = b"\0outer\0a\0";
        let mut data = MAGIC.to_ne_bytes().to_vec();
        data.extend([1, 0]);
        for number in [HEADER_LENGTH, 0, types.len(), types.len(), strings.len()] {
            data.extend(word(number));
        }
        data.extend(types);
        data.extend(strings);
        let btf = Btf::parse(&data).expect("well-formed");
        assert_eq!(btf.offset_of("outer", "a"), None);
    }

    proptest! {
        #[test]
        fn any_damage_is_survived(at in 0..220usize, value in any::<u8>()) {
            let mut data = sample();
            let at = at % data.len();
            data[at] = value;
            if let Ok(btf) = Btf::parse(&data) {
                let _ = btf.offset_of("outer", "in.y");
                let _ = btf.tracepoint_arguments("t");
            }
        }
    }
}
