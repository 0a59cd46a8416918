//! How much stack the programs need, as older kernels reckon it: whatever loads here must load there.
//!
//! Up to 6.1 at least each frame counts as a multiple of 32 bytes, from 6.12 on of 16:
//! <https://github.com/torvalds/linux/blob/v6.1/kernel/bpf/verifier.c#L4424-L4437>.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use aya_obj::{Object, generated::bpf_insn};

use super::loader::OBJECT;

const LIMIT: usize = 512;
const FRAME: usize = 32;
const STACK_POINTER: u8 = 10;
/// A call of a function of the program's own.
const OWN: u8 = 1;

mod code {
    pub(super) const CALL: u8 = 0x85;
    pub(super) const COPY: u8 = 0xbf;
    pub(super) const ADD: u8 = 0x07;
    pub(super) const LOAD: u8 = 0x01;
    pub(super) const STORE: u8 = 0x02;
    pub(super) const STORE_REGISTER: u8 = 0x03;
}

/// A function: what it takes, and what it calls by where that begins.
#[derive(Default)]
struct Frame {
    bytes: usize,
    calls: BTreeSet<usize>,
}

/// The function that begins at `start` and ends before `end`.
fn frame(program: &[bpf_insn], start: usize, end: usize) -> Frame {
    let mut frame = Frame::default();
    let mut copies = HashSet::new();
    for (at, step) in program.iter().enumerate().take(end).skip(start) {
        let depth = match (step.code, step.code & 0x07) {
            (code::CALL, _) if step.src_reg() == OWN => {
                frame.calls.extend(at.checked_add_signed(step.imm as isize + 1));
                0
            }
            (code::COPY, _) if step.src_reg() == STACK_POINTER => {
                copies.insert(step.dst_reg());
                0
            }
            (code::ADD, _) if copies.remove(&step.dst_reg()) => -step.imm,
            (_, code::LOAD) if step.src_reg() == STACK_POINTER => -i32::from(step.off),
            (_, code::STORE | code::STORE_REGISTER) if step.dst_reg() == STACK_POINTER => {
                -i32::from(step.off)
            }
            _ => 0,
        };
        frame.bytes = frame.bytes.max(usize::try_from(depth).unwrap_or(0));
    }
    frame
}

/// What the deepest chain of calls from a function takes.
fn chain(frames: &BTreeMap<usize, Frame>, start: usize) -> usize {
    let Frame { bytes, calls } = &frames[&start];
    let deepest = calls.iter().map(|call| chain(frames, *call)).max().unwrap_or(0);
    bytes.max(&1).next_multiple_of(FRAME) + deepest
}

fn needed(program: &[bpf_insn]) -> usize {
    let whole = frame(program, 0, program.len());
    let starts: Vec<usize> = [0].into_iter().chain(whole.calls).collect();
    let ends = starts.iter().copied().skip(1).chain([program.len()]);
    let frames = starts.iter().zip(ends).map(|(start, end)| (*start, frame(program, *start, end)));
    chain(&frames.collect(), 0)
}

#[test]
fn programs_fit_the_stack_of_every_kernel() {
    let mut object = Object::parse(OBJECT).expect("an object");
    let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_calls(&sections).expect("functions that are there");
    assert!(!object.programs.is_empty());
    for (name, program) in &object.programs {
        let function = &object.functions[&program.function_key()];
        let needed = needed(&function.instructions);
        assert!((FRAME..=LIMIT).contains(&needed), "{name} needs {needed} bytes of stack");
    }
}
