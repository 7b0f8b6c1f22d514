//! The committed module, whose instructions are counted.

use hotslot_plugin::Argument;
use hotslot_plugin::abi::wire::GuestCall;
use wasmtime::{Config, Engine, Linker, Memory, Module, Store, TypedFunc};

/// Compiles the module so that every instruction is counted.
pub(crate) fn compile() -> Module {
    let engine = Engine::new(Config::new().consume_fuel(true)).unwrap();
    Module::new(&engine, include_bytes!("../../universal-waf.wasm")).unwrap()
}

/// An instance of it.
pub(crate) struct Metered {
    store: Store<()>,
    memory: Memory,
    room: TypedFunc<u32, u32>,
    invoke: TypedFunc<(u32, u32), u32>,
}

impl Metered {
    pub(crate) fn new(module: &Module, rules: &str) -> Metered {
        let mut store = Store::new(module.engine(), ());
        store.set_fuel(u64::MAX).unwrap();
        let mut linker = Linker::new(module.engine());
        linker.define_unknown_imports_as_traps(module).unwrap();
        let instance = linker.instantiate(&mut store, module).unwrap();
        let memory = instance.get_memory(&mut store, "memory").unwrap();
        let room = instance.get_typed_func(&mut store, "hotslot_room").unwrap();
        let create: TypedFunc<u32, u64> = instance.get_typed_func(&mut store, "hotslot_create").unwrap();
        let invoke = instance.get_typed_func(&mut store, "hotslot_invoke").unwrap();
        let mut metered = Metered { store, memory, room, invoke };
        let at = metered.place(rules.len());
        metered.memory.write(&mut metered.store, at as usize, rules.as_bytes()).unwrap();
        assert_eq!(create.call(&mut metered.store, rules.len() as u32).unwrap(), 0, "{rules}");
        metered
    }

    fn place(&mut self, len: usize) -> u32 {
        self.room.call(&mut self.store, len as u32).unwrap()
    }

    /// How many instructions it takes to inspect a request.
    pub(crate) fn instructions(&mut self, request: &[u8]) -> u64 {
        let arguments = [Argument::bytes(request)];
        let call = GuestCall::new(&arguments, 0);
        let at = self.place(call.size());
        let mut piece = vec![0; call.size()];
        call.write(at, &mut piece);
        self.memory.write(&mut self.store, at as usize, &piece).unwrap();
        let before = self.store.get_fuel().unwrap();
        assert_eq!(self.invoke.call(&mut self.store, (0, at)).unwrap(), 0);
        before - self.store.get_fuel().unwrap()
    }
}
