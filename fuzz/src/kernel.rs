//! What the kernel tells: its types, and the evidence of incidents.

use std::{
    net::Ipv6Addr,
    time::{Duration, UNIX_EPOCH},
};

use finwatch::{
    kernel::{
        btf::Btf,
        hooks::{Precision, locate, wanted},
    },
    model::{
        incident::{IncidentRecord, Surroundings},
        labels::{labels as labels_of, process_name},
        names::Names,
        observation::Process,
        workload::workload,
    },
};
use finwatch_ebpf::wire::Incident;

use crate::{
    input::Input,
    printed::{check_error, check_text},
};

/// The kernel's types: what the loader asks them is answered, or refused.
pub fn btf(data: &[u8]) {
    match Btf::parse(data) {
        Ok(btf) => {
            locate(&btf);
            wanted(&btf, Some(Precision::Finest));
            btf.has_function("bpf_get_current_task_btf");
        }
        Err(error) => check_error(&error),
    }
}

/// A record of the ring buffer: what comes of it prints harmlessly, in order, and is read back as it was written.
pub fn incidents(data: &[u8]) {
    let mut input = Input::new(data);
    let incident: Incident = input.record();
    let [wall_ms, hz, id]: [u32; 3] = [input.record(), input.record(), input.record()];
    let monotonic_ns = input.record();
    let holder: [u8; 16] = input.record();
    let group = input.text();
    let around = Surroundings {
        id: id.into(),
        clocks: (UNIX_EPOCH + Duration::from_millis(wall_ms.into()), monotonic_ns),
        hz,
        pair: labels_of(&incident.key, &Names::default(), || workload(&group)),
        netns: incident.endpoints.netns.to_string(),
        process: Some(Process { name: process_name(&holder), pid: incident.pid }),
        backend: (id % 2 == 0).then(|| {
            let end = &incident.endpoints;
            (Ipv6Addr::from(end.remote).to_canonical(), end.remote_port).into()
        }),
    };
    let Some(record) = IncidentRecord::read(&incident, around) else { return };
    assert!(record.timeline.is_sorted_by_key(|step| step.offset_ms), "{record:?}");
    for columns in [20, 80] {
        check_text(&format!("{record:columns$}"));
    }
    let line = serde_json::to_string(&record).expect("it is written");
    check_text(&line);
    assert!(!line.contains('\n'), "{line:?}");
    let read: IncidentRecord = serde_json::from_str(&line).expect("it is read");
    assert_eq!(serde_json::to_string(&read).expect("it is written"), line);
}
