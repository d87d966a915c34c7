//! Batches of conditional statements (PartiQL), each with its own outcome: up to 25 changes in one call.
//!
//! A batch is no transaction: each statement is one item's and stands alone. What the service throttled is asked for again,
//! within limits; what it may have done without saying so, too, and that is remembered with the outcome.

use super::item::Item;
use super::{DynamoDbCatalog, is_unknown};
use crate::error_map::Call;
use crate::limits::{BATCH_STATEMENTS_MAX, LEFT_OVER_ROUNDS};
use aws_sdk_dynamodb::types::{
    AttributeValue, BatchStatementError, BatchStatementRequest, BatchStatementResponse, ReturnConsumedCapacity,
    ReturnValuesOnConditionCheckFailure,
};
use engine::error::{ErrorKind, PortError, PortResult};

/// One statement with its parameters.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    pub(super) text: String,
    pub(super) parameters: Vec<AttributeValue>,
}

/// How a statement ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// Done.
    Done {
        /// The item that the statement returned.
        returned: Option<Item>,
        /// An earlier try of it may have counted.
        maybe_before: bool,
    },
    /// The condition did not hold for the item that stands there, or one stands where a new one was to be.
    Refused(Option<Item>),
}

/// The service takes no statements.
pub(super) struct NoStatements;

/// What one answer means.
enum Answer {
    Ended(PortResult<Ended>),
    /// To be asked for again.
    LeftOut {
        error: PortError,
        maybe_done: bool,
    },
}

impl DynamoDbCatalog {
    /// Runs at most [`BATCH_STATEMENTS_MAX`] statements, no two on one item; one outcome each, in order.
    pub(super) async fn run_statements(
        &self,
        call: &Call,
        statements: &[Statement],
    ) -> Result<Vec<PortResult<Ended>>, NoStatements> {
        assert!(statements.len() <= BATCH_STATEMENTS_MAX, "the service takes no more at once");
        let mut outcomes: Vec<Option<PortResult<Ended>>> = statements.iter().map(|_| None).collect();
        let mut maybe_done = vec![false; statements.len()];
        let mut left: Vec<usize> = (0..statements.len()).collect();
        let mut round = 0;
        while !left.is_empty() {
            let answers = match self.run_once(call, statements, &left).await {
                Ok(answers) => answers?,
                Err(error) => {
                    left.iter().for_each(|n| outcomes[*n] = Some(Err(error.clone())));
                    break;
                }
            };
            let many = left.len();
            let mut again = Vec::new();
            for (n, answer) in left.into_iter().zip(answers) {
                match read_answer(call, answer, maybe_done[n]) {
                    Answer::Ended(outcome) => outcomes[n] = Some(outcome),
                    Answer::LeftOut { error, maybe_done: done } => {
                        maybe_done[n] |= done;
                        outcomes[n] = Some(Err(error));
                        again.push(n);
                    }
                }
            }
            left = again;
            round = if left.len() < many { 0 } else { round + 1 };
            if round >= LEFT_OVER_ROUNDS {
                break;
            }
            if !left.is_empty() {
                self.wait(round).await;
            }
        }
        let unanswered = || call.failed(ErrorKind::Internal("the batch's answer has no place for it".to_owned()));
        Ok(outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| Err(unanswered()))).collect())
    }

    /// One call. The outer error is the call's; the inner one says that the service does not know it.
    async fn run_once(
        &self,
        call: &Call,
        statements: &[Statement],
        which: &[usize],
    ) -> PortResult<Result<Vec<BatchStatementResponse>, NoStatements>> {
        let mut batch = self.client.batch_execute_statement();
        for statement in which.iter().map(|n| &statements[*n]) {
            let request = BatchStatementRequest::builder()
                .statement(&statement.text)
                .set_parameters(Some(statement.parameters.clone()))
                .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
                .build();
            let wrong = |error| call.failed(ErrorKind::Internal("a statement without text".to_owned())).because(error);
            batch = batch.statements(request.map_err(wrong)?);
        }
        match batch.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await {
            Ok(answer) => {
                self.capacity.wrote(answer.consumed_capacity());
                Ok(Ok(answer.responses.unwrap_or_default()))
            }
            Err(error) if is_unknown(&error) => Ok(Err(NoStatements)),
            Err(error) => Err(call.sdk(error)),
        }
    }
}

fn read_answer(call: &Call, answer: BatchStatementResponse, maybe_before: bool) -> Answer {
    let Some(error) = answer.error else {
        return Answer::Ended(Ok(Ended::Done { returned: answer.item, maybe_before }));
    };
    let code = error.code.as_ref().map_or("", |code| code.as_str());
    match code {
        "ConditionalCheckFailed" | "DuplicateItem" => Answer::Ended(Ok(Ended::Refused(error.item))),
        "ProvisionedThroughputExceeded" | "RequestLimitExceeded" | "ThrottlingError" => {
            Answer::LeftOut { error: call.failed(ErrorKind::Throttled), maybe_done: false }
        }
        // Another write of the same item was under way: this one was not done.
        "TransactionConflict" => Answer::LeftOut { error: call.failed(ErrorKind::Unavailable), maybe_done: false },
        "InternalServerError" => Answer::LeftOut { error: call.failed(ErrorKind::Unavailable), maybe_done: true },
        _ => Answer::Ended(Err(lasting(call, code, &error))),
    }
}

/// An error that trying again at once does not mend.
fn lasting(call: &Call, code: &str, error: &BatchStatementError) -> PortError {
    let code = match code {
        "ResourceNotFound" => "ResourceNotFoundException",
        code => code,
    };
    call.item(code, error.message().unwrap_or_default())
}
