//! One source file with all of its mutants in it, each of which is chosen when the program runs.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{BinOp, Expr};

use crate::list::{Genre, Mutant};

/// A part of the source that is written in another way.
struct Node {
    at: Range<usize>,
    kind: Kind,
}

enum Kind {
    /// At the beginning of a function's body.
    Body(Vec<usize>),
    /// Operands, and what stands between them.
    Binary {
        left: Range<usize>,
        right: Range<usize>,
        operator: Operator,
        mutants: Vec<usize>,
    },
    Unary {
        operand: Range<usize>,
        mutant: usize,
    },
    /// Behind a pattern: what is there of a guard, and the mutants that delete the arm or replace the guard.
    Arm {
        guard: Option<Range<usize>>,
        deleted: Option<usize>,
        always: Option<usize>,
        never: Option<usize>,
    },
}

#[derive(Clone, Copy, PartialEq)]
enum Operator {
    /// Takes references: nothing is moved, nothing is written twice.
    Comparison,
    /// Takes values.
    Arithmetic,
    /// Its operands are written twice: the second is not always evaluated, or the first is a place.
    Other,
}

/// Writes the source with those of the mutants in it that fit in; gives also which do.
pub fn write(source: &str, mutants: &[(usize, &Mutant)]) -> syn::Result<(String, BTreeSet<usize>)> {
    let file = syn::parse_file(source)?;
    let mut finder = Finder { source, mutants: BTreeMap::new(), nodes: Vec::new() };
    for (id, mutant) in mutants {
        finder.mutants.entry(mutant.offset(source)).or_default().push((*id, mutant));
    }
    finder.visit_file(&file);
    let mut nodes = finder.nodes;
    nodes.sort_by_key(|node| (node.at.start, std::cmp::Reverse(node.at.end)));
    let ids = nodes.iter().flat_map(|node| node.kind.ids()).collect();
    let writer = Writer { source, mutants: mutants.iter().copied().collect(), nodes };
    Ok((writer.text(0..source.len(), 0), ids))
}

/// Where the modules are that are compiled for tests only.
pub fn tests(source: &str) -> syn::Result<Vec<Range<usize>>> {
    let modules = syn::parse_file(source)?.items.into_iter().filter_map(|item| match item {
        syn::Item::Mod(module) => Some(module),
        _ => None,
    });
    let is_for_tests = |module: &syn::ItemMod| {
        let conditions = module.attrs.iter().filter(|attribute| attribute.path().is_ident("cfg"));
        conditions
            .map(|condition| &source[condition.span().byte_range()])
            .any(|text| text.split(|sign: char| !sign.is_alphanumeric() && sign != '_').any(|word| word == "test"))
    };
    Ok(modules.filter(is_for_tests).map(|module| module.span().byte_range()).collect())
}

impl Kind {
    fn ids(&self) -> Vec<usize> {
        match self {
            Kind::Body(mutants) | Kind::Binary { mutants, .. } => mutants.clone(),
            Kind::Unary { mutant, .. } => vec![*mutant],
            Kind::Arm { deleted, always, never, .. } => [*deleted, *always, *never].into_iter().flatten().collect(),
        }
    }
}

struct Finder<'a> {
    source: &'a str,
    /// By where they begin.
    mutants: BTreeMap<usize, Vec<(usize, &'a Mutant)>>,
    nodes: Vec<Node>,
}

impl Finder<'_> {
    fn at(&self, span: Span, genre: Genre) -> Vec<(usize, &Mutant)> {
        let at = self.mutants.get(&span.byte_range().start).into_iter().flatten();
        at.filter(|(_, mutant)| mutant.genre == genre).copied().collect()
    }

    fn body(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let Some(first) = block.stmts.first() else { return };
        // What a constant function calls has to be constant, and the other type of an opaque one is another type.
        let is_opaque =
            matches!(&signature.output, syn::ReturnType::Type(_, ty) if self.text(ty.span()).contains("impl "));
        if signature.constness.is_some() || is_opaque {
            return;
        }
        let mutants: Vec<_> = self.at(first.span(), Genre::FnValue).into_iter().map(|(id, _)| id).collect();
        if !mutants.is_empty() {
            let start = block.brace_token.span.open().byte_range().end;
            self.nodes.push(Node { at: start..start, kind: Kind::Body(mutants) });
        }
    }

    fn text(&self, span: Span) -> &str {
        &self.source[span.byte_range()]
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.body(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.body(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.body(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_expr_binary(&mut self, expr: &'ast syn::ExprBinary) {
        let mutants: Vec<_> = self.at(expr.op.span(), Genre::BinaryOperator).into_iter().map(|(id, _)| id).collect();
        if !mutants.is_empty() && !has_let(&expr.left) && !has_let(&expr.right) {
            let operator = match expr.op {
                BinOp::Eq(_) | BinOp::Ne(_) | BinOp::Lt(_) | BinOp::Le(_) | BinOp::Gt(_) | BinOp::Ge(_) => {
                    Operator::Comparison
                }
                BinOp::Add(_)
                | BinOp::Sub(_)
                | BinOp::Mul(_)
                | BinOp::Div(_)
                | BinOp::Rem(_)
                | BinOp::BitXor(_)
                | BinOp::BitAnd(_)
                | BinOp::BitOr(_)
                | BinOp::Shl(_)
                | BinOp::Shr(_) => Operator::Arithmetic,
                _ => Operator::Other,
            };
            let (left, right) = (expr.left.span().byte_range(), expr.right.span().byte_range());
            self.nodes.push(Node { at: left.start..right.end, kind: Kind::Binary { left, right, operator, mutants } });
        }
        visit::visit_expr_binary(self, expr);
    }

    fn visit_expr_unary(&mut self, expr: &'ast syn::ExprUnary) {
        if let Some((mutant, _)) = self.at(expr.op.span(), Genre::UnaryOperator).first() {
            let operand = expr.expr.span().byte_range();
            let node = Node { at: expr.span().byte_range(), kind: Kind::Unary { operand, mutant: *mutant } };
            self.nodes.push(node);
        }
        visit::visit_expr_unary(self, expr);
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        let deleted = self.at(arm.span(), Genre::MatchArm).first().map(|(id, _)| *id);
        let (pattern, guard) = match &arm.pat {
            syn::Pat::Guard(guarded) => (&*guarded.pat, Some(&*guarded.guard)),
            pattern => (pattern, None),
        };
        let behind = pattern.span().byte_range().end;
        let (mut always, mut never) = (None, None);
        if let Some(guard) = guard.filter(|guard| !has_let(guard)) {
            for (id, mutant) in self.at(guard.span(), Genre::MatchArmGuard) {
                *(if mutant.replacement == "true" { &mut always } else { &mut never }) = Some(id);
            }
        }
        let is_plain = guard.is_none_or(|guard| !has_let(guard));
        if is_plain && (deleted.is_some() || always.is_some() || never.is_some()) {
            let guard = guard.map(|guard| guard.span().byte_range());
            let end = guard.as_ref().map_or(behind, |guard| guard.end);
            self.nodes.push(Node { at: behind..end, kind: Kind::Arm { guard, deleted, always, never } });
        }
        visit::visit_arm(self, arm);
    }
}

/// Whether it is a condition with `let`, which stands nowhere else.
fn has_let(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(binary) if matches!(binary.op, BinOp::And(_)) => has_let(&binary.left) || has_let(&binary.right),
        _ => false,
    }
}

struct Writer<'a> {
    source: &'a str,
    mutants: BTreeMap<usize, &'a Mutant>,
    /// Outer ones before those in them.
    nodes: Vec<Node>,
}

impl Writer<'_> {
    /// A part of the source, with the nodes in it from a place in the list on.
    fn text(&self, part: Range<usize>, mut from: usize) -> String {
        let (mut text, mut at) = (String::new(), part.start);
        while let Some(node) = self.nodes.get(from) {
            if node.at.start >= at && node.at.end <= part.end && (node.at.start < part.end || node.at.is_empty()) {
                text += &self.source[at..node.at.start];
                text += &self.node(node, from + 1);
                at = node.at.end;
            }
            from += 1;
        }
        text + &self.source[at..part.end]
    }

    fn node(&self, node: &Node, next: usize) -> String {
        let on = |id: usize| format!("\n/*m{id}*/ crate::mutant::is_on({id})");
        match &node.kind {
            Kind::Body(mutants) => {
                let returns = |id: &usize| {
                    format!(
                        "\n/*m{id}*/ if crate::mutant::is_on({id}) {{ return {}; }}\n",
                        self.mutants[id].replacement
                    )
                };
                mutants.iter().map(returns).collect()
            }
            Kind::Binary { left, right, operator, mutants } => {
                let original = self.source[left.end..right.start].to_owned();
                let (left, right) = (self.text(left.clone(), next), self.text(right.clone(), next));
                let (before, after, left, right) = match operator {
                    Operator::Comparison => (
                        format!("match (&({left}), &({right})) {{ (left, right) => "),
                        "}",
                        "left".into(),
                        "right".into(),
                    ),
                    Operator::Arithmetic => (
                        format!("match (({left}), ({right})) {{ (left, right) => "),
                        "}",
                        "left".into(),
                        "right".into(),
                    ),
                    Operator::Other => (String::new(), "", left, right),
                };
                let mut text = format!("({before}");
                for id in mutants {
                    let other = &self.mutants[id].replacement;
                    text += &format!("if {} {{ {left} {other} {right} }} else ", on(*id));
                }
                text + &format!("{{ {left} {original} {right} }} {after}\n)")
            }
            Kind::Unary { operand, mutant } => {
                let (whole, operand) = (&self.source[node.at.start..operand.start], self.text(operand.clone(), next));
                format!("(if {} {{ {operand} }} else {{ {whole}{operand} }}\n)", on(*mutant))
            }
            Kind::Arm { guard, deleted, always, never } => {
                let mut text = guard.clone().map_or("true".to_owned(), |guard| format!("({})", self.text(guard, next)));
                if let Some(id) = never {
                    text = format!("(!{} && {text})", on(*id));
                }
                if let Some(id) = always {
                    text = format!("({} || {text})", on(*id));
                }
                if let Some(id) = deleted {
                    text = format!("!{} && {text}", on(*id));
                }
                format!(" if {text}\n")
            }
        }
    }
}
