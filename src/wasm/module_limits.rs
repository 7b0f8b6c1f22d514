//! How large and how intricate a module may be.

/// Limits on a module's size and structure. What is not listed here, a module cannot have.
///
/// The defaults admit ordinary plugins, and keep a compilation within seconds and a few hundred megabytes. The number at
/// the end of each line is the default.
///
/// Those of blocks and values are measured. A module of 480 KB with many regular expressions has 21,000 blocks, 500,000
/// values alive in them (126,000 in one function) and passes 26,000 values, a tenth or less of what is allowed. On the other
/// side, one value alive in one block more costs up to 2.4 µs in the compiler, and the 64 values of a block's type that
/// 5,000 loops pass on cost 15 KB of code, minutes and 20 GB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleLimits {
    /// Bytes. 8 MiB.
    pub size: usize,
    /// Defined functions. 20,000.
    pub functions: u32,
    /// Bytes of one function. 256 KiB.
    pub body: usize,
    /// Nesting depth of blocks in one function. 256.
    pub nesting: u32,
    /// Locals of one function, its parameters included. 5,000.
    pub locals: u32,
    /// Operands on the stack at once, in one function. 1,000.
    pub operands: u32,
    /// Locals times loops of one function, which the compiler's work grows with. 1,000,000.
    pub loop_locals: u64,
    /// Types. 2,000.
    pub types: u32,
    /// Parameters and results of one type. 64.
    pub arity: usize,
    /// Imports. 200.
    pub imports: u32,
    /// Exports. 1,000.
    pub exports: u32,
    /// Globals. 10,000.
    pub globals: u32,
    /// Data segments. 10,000.
    pub data_segments: u32,
    /// Element segments. 1,000.
    pub element_segments: u32,
    /// Tables, at most 4. 4.
    pub tables: u32,
    /// Loops of one function. 1,000.
    pub loops: u64,
    /// Loops of all functions. 20,000.
    pub total_loops: u64,
    /// Blocks, branches and targets of branch tables of one function. 30,000.
    pub blocks: u64,
    /// Blocks, branches and targets of all functions. 400,000.
    pub total_blocks: u64,
    /// Values that can be alive where a function's control flow splits or joins: operands and locals, summed up over its
    /// blocks. A call through a table or into the engine counts as two of them, for what is checked there. 1,000,000.
    pub live_values: u64,
    /// The same of all functions. 5,000,000.
    pub total_live_values: u64,
    /// Values that the calls, branches and blocks of one function take and give, summed up; a call through a table or into the
    /// engine, as `memory.grow` is one, counts as ten. 30,000.
    pub passed_values: u64,
    /// The same of all functions, and their parameters and results. 400,000.
    pub total_passed_values: u64,
    /// Elements of all element segments. 20,000.
    pub elements: u64,
    /// Elements in segments whose offset is computed, as in `(i32.add (i32.const 1) (i32.const 0))`. 1,000.
    pub placed_elements: u64,
    /// Operators of all constant expressions: of globals, of elements and of offsets. 50,000.
    pub constant_operators: u64,
}

impl Default for ModuleLimits {
    fn default() -> ModuleLimits {
        ModuleLimits {
            size: 8 << 20,
            functions: 20_000,
            body: 256 << 10,
            nesting: 256,
            locals: 5_000,
            operands: 1_000,
            loop_locals: 1_000_000,
            types: 2_000,
            arity: 64,
            imports: 200,
            exports: 1_000,
            globals: 10_000,
            data_segments: 10_000,
            element_segments: 1_000,
            tables: 4,
            loops: 1_000,
            total_loops: 20_000,
            blocks: 30_000,
            total_blocks: 400_000,
            live_values: 1_000_000,
            total_live_values: 5_000_000,
            passed_values: 30_000,
            total_passed_values: 400_000,
            elements: 20_000,
            placed_elements: 1_000,
            constant_operators: 50_000,
        }
    }
}
