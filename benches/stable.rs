//! The same interface through `abi_stable` and through `stabby`, whose types have a stable layout instead of an encoding.

use std::hint::black_box;

use abi_stable::StableAbi;
use abi_stable::sabi_trait;
use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::std_types::{RBox, RSlice, RString, RVec, Tuple2};
use criterion::Criterion;
use hotslot_bench_interface::Request;

#[sabi_trait]
trait Stable: Send + Sync {
    fn nothing(&self);
    fn length(&self, bytes: RSlice<'_, u8>) -> u64;
    fn headers(&self, request: &StableRequest) -> u32;
}

#[repr(C)]
#[derive(StableAbi)]
struct StableRequest {
    method: RString,
    path: RString,
    headers: RVec<Tuple2<RString, RString>>,
}

struct Nothing;

impl Stable for Nothing {
    fn nothing(&self) {}

    fn length(&self, bytes: RSlice<'_, u8>) -> u64 {
        bytes.len() as u64
    }

    fn headers(&self, request: &StableRequest) -> u32 {
        request.headers.len() as u32
    }
}

/// Through `stabby`, without a type of serde: that would be the same conversion.
#[stabby::stabby]
trait Stabby {
    extern "C" fn nothing(&self);
    extern "C" fn length(&self, bytes: stabby::slice::Slice<'_, u8>) -> u64;
}

impl Stabby for Nothing {
    extern "C" fn nothing(&self) {}

    extern "C" fn length(&self, bytes: stabby::slice::Slice<'_, u8>) -> u64 {
        bytes.len() as u64
    }
}

pub(super) fn stable(c: &mut Criterion) {
    let plugin: stabby::dynptr!(stabby::boxed::Box<dyn Stabby>) = stabby::boxed::Box::new(Nothing).into();
    c.bench_function("nothing/stabby", |b| b.iter(|| StabbyDyn::nothing(black_box(&plugin))));
    c.bench_function("1 KiB of bytes/stabby", |b| {
        b.iter(|| StabbyDyn::length(black_box(&plugin), black_box(&super::BYTES)[..].into()));
    });

    let plugin: Stable_TO<'static, RBox<()>> = Stable_TO::from_value(Nothing, TD_Opaque);
    c.bench_function("nothing/abi_stable", |b| b.iter(|| black_box(&plugin).nothing()));
    c.bench_function("1 KiB of bytes/abi_stable", |b| {
        b.iter(|| black_box(&plugin).length(RSlice::from_slice(black_box(&super::BYTES))));
    });
    // Rust's own types must be converted to the peer's.
    let request = Request::ordinary();
    c.bench_function("a type of serde/abi_stable, converted", |b| {
        b.iter(|| {
            let Request { method, path, headers } = black_box(&request).clone();
            let headers = headers.into_iter().map(|(name, value)| Tuple2(name.into(), value.into())).collect();
            let request = StableRequest { method: method.into(), path: path.into(), headers };
            black_box(&plugin).headers(&request)
        });
    });
}
