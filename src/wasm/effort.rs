//! Counts what a compiler's work grows with: not bytes, but values that are alive where control flow splits or joins, and
//! values that are passed on.
//!
//! The counts are upper bounds that can be known before the compilation, in the pass that validates. They are taken for
//! each function and for the module as a whole, so that many functions of medium effort do not pass either.

use wasmparser::{ConstExpr, ElementItems, ElementKind, FuncValidator, Operator, WasmModuleResources};

use super::error::ModuleError;
use super::module_limits::ModuleLimits;

/// A call through a table or into the engine comes with checks: as much code as so many values take.
const CALL: u64 = 10;

/// What one function takes, or all of them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Effort {
    pub(super) loops: u64,
    /// Where control flow splits or joins.
    pub(super) blocks: u64,
    /// The values that can be alive there, summed up: operands on the stack, and locals.
    pub(super) live_values: u64,
    /// The values that calls, branches, blocks and the function itself take and give, summed up.
    pub(super) passed_values: u64,
}

impl Effort {
    /// Begins to count a function with so many parameters and results.
    pub(super) fn of_function(values: u64) -> Effort {
        Effort { passed_values: values, ..Effort::default() }
    }

    /// Counts one operator, which is not validated yet.
    pub(super) fn count<R: WasmModuleResources>(&mut self, operator: &Operator<'_>, validator: &FuncValidator<R>) {
        use Operator::*;
        let (blocks, times, code) = match operator {
            Block { .. } | Loop { .. } | Else | BrIf { .. } => (1, 1, 0),
            If { .. } => (2, 1, 0),
            BrTable { targets } => (u64::from(targets.len()) + 1, u64::from(targets.len()) + 1, 0),
            Br { .. } | Return => (0, 1, 0),
            Call { .. } => (0, 1, 1),
            // What is checked at each of them, control flow splits on: values that are alive there are spilled and moved. Those
            // of the second kind are calls into the engine.
            CallIndirect { .. }
            | MemoryGrow { .. }
            | MemoryFill { .. }
            | MemoryCopy { .. }
            | MemoryInit { .. }
            | DataDrop { .. }
            | TableGrow { .. }
            | TableFill { .. }
            | TableCopy { .. }
            | TableInit { .. }
            | ElemDrop { .. }
            | TableGet { .. }
            | TableSet { .. }
            | RefFunc { .. } => (2, 1, CALL),
            _ => return,
        };
        let alive = u64::from(validator.operand_stack_height()) + u64::from(validator.len_locals());
        let (taken, given) = operator.operator_arity(validator).unwrap_or_default();
        self.loops += u64::from(matches!(operator, Loop { .. }));
        self.blocks += blocks;
        self.live_values += blocks * alive;
        self.passed_values += times * (u64::from(taken) + u64::from(given)) + code;
    }

    pub(super) fn add(&mut self, other: &Effort) {
        self.loops += other.loops;
        self.blocks += other.blocks;
        self.live_values += other.live_values;
        self.passed_values += other.passed_values;
    }

    /// Checks what one function takes, as far as it is known.
    pub(super) fn check_function(&self, limits: &ModuleLimits, offset: usize, index: u32) -> Result<(), ModuleError> {
        let limits = [limits.loops, limits.blocks, limits.live_values, limits.passed_values];
        self.check(
            ["loops", "blocks and branches", "values alive in blocks", "passed values"],
            limits,
            offset,
            Some(index),
        )
    }

    /// Checks what all functions so far take.
    pub(super) fn check_total(&self, limits: &ModuleLimits, offset: usize) -> Result<(), ModuleError> {
        let limits = [limits.total_loops, limits.total_blocks, limits.total_live_values, limits.total_passed_values];
        let what = [
            "loops of all functions",
            "blocks and branches of all functions",
            "values alive in blocks of all functions",
            "passed values of all functions",
        ];
        self.check(what, limits, offset, None)
    }

    fn check(
        &self,
        what: [&'static str; 4],
        limits: [u64; 4],
        offset: usize,
        function: Option<u32>,
    ) -> Result<(), ModuleError> {
        let found = [self.loops, self.blocks, self.live_values, self.passed_values];
        match (0..4).find(|&index| found[index] > limits[index]) {
            Some(index) => {
                let (what, found, limit) = (what[index], found[index], limits[index]);
                Err(ModuleError::Limit { what, found, limit, offset, function })
            }
            None => Ok(()),
        }
    }
}

/// What the start of a module's instances takes: the compiler makes code of what it cannot lay out beforehand.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Initialisation {
    /// Elements of tables.
    elements: u64,
    /// Elements whose place in the table is computed.
    placed_elements: u64,
    /// Operators of constant expressions.
    operators: u64,
}

impl Initialisation {
    /// Counts a constant expression, which is known to be valid. Returns whether it computes anything.
    pub(super) fn expression(&mut self, expression: &ConstExpr<'_>) -> Result<bool, ModuleError> {
        let mut operators = 0;
        for operator in expression.get_operators_reader() {
            operator?;
            operators += 1;
        }
        // The value, and the end.
        self.operators += operators - 1;
        Ok(operators > 2)
    }

    /// Counts a segment of elements, which is known to be valid.
    pub(super) fn segment(&mut self, segment: wasmparser::Element<'_>) -> Result<(), ModuleError> {
        let is_computed = match segment.kind {
            ElementKind::Active { offset_expr, .. } => self.expression(&offset_expr)?,
            ElementKind::Passive | ElementKind::Declared => false,
        };
        let elements = match segment.items {
            ElementItems::Functions(functions) => functions.count(),
            ElementItems::Expressions(_, expressions) => {
                let count = expressions.count();
                for expression in expressions {
                    self.expression(&expression?)?;
                }
                count
            }
        };
        self.elements += u64::from(elements);
        self.placed_elements += u64::from(elements) * u64::from(is_computed);
        Ok(())
    }

    pub(super) fn check(&self, limits: &ModuleLimits, offset: usize) -> Result<(), ModuleError> {
        for (what, found, limit) in [
            ("elements", self.elements, limits.elements),
            ("elements at a computed offset", self.placed_elements, limits.placed_elements),
            ("operators of constant expressions", self.operators, limits.constant_operators),
        ] {
            if found > limit {
                return Err(ModuleError::Limit { what, found, limit, offset, function: None });
            }
        }
        Ok(())
    }
}
