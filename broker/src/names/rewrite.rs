//! The pass that gives names the spelling of what they stand for, and result columns the user's own.

use super::definitions::virtual_column;
use super::repeated::tell_apart;
use super::resolve::{key_of, unique};
use crate::tables::NamedTable;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, DataType, DuplicateTreatment, ExactNumberInfo, Expr, Function,
    FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, JoinConstraint,
    JoinOperator, ObjectName, ObjectNamePart, Select, SelectItem, SelectItemQualifiedWildcardKind,
    TableFactor, Value, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::Span;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

/// All names that are in play in a statement.
pub(super) struct Scope {
    pub(super) relations: BTreeSet<String>,
    pub(super) columns: BTreeSet<String>,
}

/// Puts the catalog's names in the place of the user's.
pub(super) struct Rewriter<'a> {
    pub(super) scope: &'a Scope,
    pub(super) renamed: &'a BTreeMap<Vec<String>, (Option<String>, String)>,
    pub(super) uses_virtual_columns: bool,
    pub(super) tables: &'a BTreeMap<(Option<String>, String), NamedTable>,
}

fn settle(ident: &mut Ident, names: &BTreeSet<String>) {
    if !names.contains(&ident.value)
        && let Some(found) = unique(names, &ident.value)
    {
        ident.value = found.to_owned();
    }
}

impl Rewriter<'_> {
    fn settle_parts(&self, parts: &mut [Ident]) {
        let Some((last, qualifiers)) = parts.split_last_mut() else {
            return;
        };
        qualifiers
            .iter_mut()
            .for_each(|q| settle(q, &self.scope.relations));
        settle(last, &self.scope.columns);
    }
}

impl VisitorMut for Rewriter<'_> {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        if self.uses_virtual_columns {
            self.expand_wildcards(select);
        }
        for item in &mut select.projection {
            match item {
                // The user's own spelling, before names are changed below it.
                SelectItem::UnnamedExpr(expr) if !is_plain(expr, self.uses_virtual_columns) => {
                    let alias = Ident {
                        value: expr.to_string(),
                        quote_style: Some('"'),
                        span: Span::empty(),
                    };
                    let expr = expr.clone();
                    *item = SelectItem::ExprWithAlias { expr, alias };
                }
                SelectItem::QualifiedWildcard(
                    SelectItemQualifiedWildcardKind::ObjectName(name),
                    _,
                ) => {
                    for part in &mut name.0 {
                        if let ObjectNamePart::Identifier(ident) = part {
                            settle(ident, &self.scope.relations);
                        }
                    }
                }
                _ => {}
            }
        }
        for join in select.from.iter_mut().flat_map(|f| &mut f.joins) {
            if let Some(JoinConstraint::Using(columns)) = constraint(&mut join.join_operator) {
                for part in columns.iter_mut().flat_map(|c| &mut c.0) {
                    if let ObjectNamePart::Identifier(ident) = part {
                        settle(ident, &self.scope.columns);
                    }
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        tell_apart(&mut select.projection);
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table {
            name, args: None, ..
        } = factor
            && let Some((schema, found)) = self.renamed.get(&key_of(name)).cloned()
        {
            let mut wanted = schema.into_iter().chain([found]);
            for part in &mut name.0 {
                if let (ObjectNamePart::Identifier(ident), Some(value)) = (part, wanted.next()) {
                    ident.value = value;
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(ident) => settle(ident, &self.scope.columns),
            Expr::CompoundIdentifier(parts) => self.settle_parts(parts),
            Expr::Function(function) => match of_lists(function) {
                Some(other) => *expr = other,
                None => pinot_function(function),
            },
            Expr::TypedString(typed) => in_milliseconds(&mut typed.data_type, &typed.value.value),
            Expr::Cast {
                expr, data_type, ..
            } => {
                if let Expr::Value(literal) = &**expr {
                    in_milliseconds(data_type, &literal.value);
                }
            }
            Expr::Value(value) => {
                if let Value::Placeholder(name) = &value.value
                    && let Some(column) = virtual_column(name)
                {
                    *expr = Expr::Identifier(Ident {
                        value: column.to_owned(),
                        quote_style: Some('"'),
                        span: value.span,
                    });
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// Pinot's names of functions that exist under other names.
fn pinot_function(function: &mut Function) {
    let [ObjectNamePart::Identifier(name)] = function.name.0.as_slice() else {
        return;
    };
    let renamed = match name.value.to_ascii_lowercase().as_str() {
        "distinctcount" | "distinctcountbitmap" | "segmentpartitioneddistinctcount" => {
            let FunctionArguments::List(arguments) = &mut function.args else {
                return;
            };
            arguments.duplicate_treatment = Some(DuplicateTreatment::Distinct);
            "count"
        }
        "distinctcounthll"
        | "distinctcounthllplus"
        | "distinctcountull"
        | "distinctcountcpcsketch"
        | "distinctcountthetasketch"
        | "distinctcountsmarthll" => {
            less_precision(function);
            "approx_distinct"
        }
        "arraylength" => "cardinality",
        "startswith" => "starts_with",
        _ => return,
    };
    if let [ObjectNamePart::Identifier(name)] = function.name.0.as_mut_slice() {
        name.value = renamed.to_owned();
    }
}

/// An aggregate of a multi-value column's elements as one of what each row's list comes to; none when it is another function.
fn of_lists(function: &Function) -> Option<Expr> {
    let [ObjectNamePart::Identifier(name)] = function.name.0.as_slice() else {
        return None;
    };
    let sum = || aggregated(function, "sum", "mv_sum");
    let count = || aggregated(function, "sum", "mv_count");
    Some(match name.value.to_ascii_lowercase().as_str() {
        "summv" => sum()?,
        "minmv" => aggregated(function, "min", "mv_min")?,
        "maxmv" => aggregated(function, "max", "mv_max")?,
        "countmv" => call(function, "coalesce", vec![count()?, zero()]),
        "avgmv" => {
            let sum = Expr::Cast {
                kind: CastKind::Cast,
                expr: Box::new(sum()?),
                data_type: DataType::Double(ExactNumberInfo::None),
                array: false,
                format: None,
            };
            let count = call(function, "nullif", vec![count()?, zero()]);
            Expr::Nested(Box::new(Expr::BinaryOp {
                left: Box::new(sum),
                op: BinaryOperator::Divide,
                right: Box::new(count),
            }))
        }
        _ => return None,
    })
}

fn zero() -> Expr {
    Expr::Value(Value::Number("0".to_owned(), false).with_empty_span())
}

/// The aggregate `outer`, filtered as `function` is, of `inner` of its argument.
fn aggregated(function: &Function, outer: &str, inner: &str) -> Option<Expr> {
    let mut aggregate = function.clone();
    aggregate.name = ObjectName::from(vec![Ident::new(outer)]);
    let FunctionArguments::List(arguments) = &mut aggregate.args else {
        return None;
    };
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))] = arguments.args.as_mut_slice()
    else {
        return None;
    };
    *argument = call(function, inner, vec![argument.clone()]);
    Some(Expr::Function(aggregate))
}

/// The function `name` of `arguments`, written where `like` is.
fn call(like: &Function, name: &str, arguments: Vec<Expr>) -> Expr {
    let arguments = arguments.into_iter().map(FunctionArgExpr::Expr);
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: arguments.map(FunctionArg::Unnamed).collect(),
            clauses: Vec::new(),
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
        ..like.clone()
    })
}

/// The logarithm of the registers that approximate counts are by.
const PRECISION: u32 = 14;

/// Takes away an argument that asks for no more registers than there are.
fn less_precision(function: &mut Function) {
    if let FunctionArguments::List(list) = &mut function.args
        && let [
            _,
            FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(precision))),
        ] = list.args.as_slice()
        && let Value::Number(digits, _) = &precision.value
        && digits.parse::<u32>().is_ok_and(|p| p <= PRECISION)
    {
        list.args.pop();
    }
}

/// Makes the type of a timestamp literal milliseconds, as columns are, unless it says more: nanoseconds end in the
/// year 2262, before the years that stand for "never".
fn in_milliseconds(data_type: &mut DataType, literal: &Value) {
    if let DataType::Timestamp(precision @ None, _) = data_type
        && let Value::SingleQuotedString(text) = literal
    {
        let fraction = text.rsplit_once('.').map_or("", |(_, fraction)| fraction);
        if fraction.bytes().take_while(u8::is_ascii_digit).count() <= 3 {
            *precision = Some(3);
        }
    }
}

/// Whether a select item is a column by its name alone.
fn is_plain(expr: &Expr, uses_virtual_columns: bool) -> bool {
    match expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => true,
        Expr::Value(value) => {
            matches!(&value.value, Value::Placeholder(name) if uses_virtual_columns && virtual_column(name).is_some())
        }
        _ => false,
    }
}

/// The condition of a join that can have one.
pub(super) fn constraint(operator: &mut JoinOperator) -> Option<&mut JoinConstraint> {
    match operator {
        JoinOperator::Join(c)
        | JoinOperator::Inner(c)
        | JoinOperator::Left(c)
        | JoinOperator::LeftOuter(c)
        | JoinOperator::Right(c)
        | JoinOperator::RightOuter(c)
        | JoinOperator::FullOuter(c)
        | JoinOperator::CrossJoin(c)
        | JoinOperator::Semi(c)
        | JoinOperator::LeftSemi(c)
        | JoinOperator::RightSemi(c)
        | JoinOperator::Anti(c)
        | JoinOperator::LeftAnti(c)
        | JoinOperator::RightAnti(c)
        | JoinOperator::StraightJoin(c) => Some(c),
        _ => None,
    }
}
