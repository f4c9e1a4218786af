//! Many requests at once to a server that stays as it is: none may fail.

use crate::Failure;
use crate::client::{Client, Counters, get, post, post_in_pieces};
use crate::context::{Context, same};
use crate::site::{big, upload};

/// No note beside the result.
const NOTHING: String = String::new();

/// 1,000 GETs at once.
pub(crate) async fn gets<C: Client>(context: Context<C>) -> Result<String, Failure> {
    context
        .each(
            1_000,
            1_000,
            |context, _| async move { context.get_small().await },
        )
        .await?;
    // P7: never more connections than allowed, however many ask at once.
    match context.client.counters() {
        Some(Counters { opened, .. }) if opened > C::CONNECTIONS as u64 => {
            Err(format!("{opened} connections").into())
        }
        _ => Ok(NOTHING),
    }
}

/// 100 uploads of 1 MB at once, every other one of unknown length.
pub(crate) async fn uploads<C: Client>(context: Context<C>) -> Result<String, Failure> {
    context
        .each(100, 100, |context, number| async move {
            upload_one(&context, number).await
        })
        .await?;
    Ok(NOTHING)
}

async fn upload_one<C: Client>(context: &Context<C>, number: usize) -> Result<(), Failure> {
    let body = upload(number);
    let uri = context.server.uri(&format!("/upload/{number}"));
    let request = if number % 2 == 0 || !context.can.pieces {
        post(&uri, body.clone())
    } else {
        post_in_pieces(&uri, &body)
    };
    let answer = context.send(request).await?;
    let expected: &[u8] = if context.can.application {
        b"identical"
    } else {
        &body
    };
    same(&answer.body, expected)
}

/// 100 downloads of 1 MB at once.
pub(crate) async fn downloads<C: Client>(context: Context<C>) -> Result<String, Failure> {
    if !context.can.early {
        // Then the limit is known.
        context.get_small().await?;
    }
    context
        .each(100, 100, |context, _| async move { download_one(&context).await })
        .await?;
    Ok(NOTHING)
}

async fn download_one<C: Client>(context: &Context<C>) -> Result<(), Failure> {
    let answer = context.send(get(&context.server.uri("/big"))).await?;
    same(&answer.body, &big())
}

/// Far more requests at once than the server takes; then as many that wait for each other as it takes.
pub(crate) async fn limited<C: Client>(context: Context<C>) -> Result<String, Failure> {
    const TOTAL: usize = 400;
    context.each(TOTAL, 200, get_or_post).await?;
    context.counted_once(TOTAL)?;
    let streams = context.settings.streams.unwrap_or(0) as usize;
    // P4: once the limit is known, nothing is sent beyond it, hence nothing is refused.
    if let Some(Counters { replays: 1.., .. }) = context.client.counters() {
        return Err("the limit was exceeded".into());
    }
    if context.can.application && (1..=3).contains(&streams) {
        hold(&context, streams * C::CONNECTIONS).await?;
    }
    Ok(NOTHING)
}

/// The server answers only when all of them are there: the whole capacity is used.
async fn hold<C: Client>(context: &Context<C>, total: usize) -> Result<(), Failure> {
    let held = context.each(total, total, |context, _| async move {
        let answer = context
            .send(get(&context.server.uri(&format!("/hold/{total}"))))
            .await?;
        same(&answer.body, b"held")
    });
    held.await?;
    Ok(())
}

/// GETs and POSTs, 20 at a time; every POST is processed once.
pub(crate) async fn mixed<C: Client>(context: Context<C>) -> Result<String, Failure> {
    const TOTAL: usize = 200;
    context.each(TOTAL, 20, get_or_post).await?;
    context.counted_once(TOTAL)?;
    Ok(NOTHING)
}

/// The same with uploads and downloads, on a server that speaks HTTP/1.1.
pub(crate) async fn h1<C: Client>(context: Context<C>) -> Result<String, Failure> {
    const TOTAL: usize = 400;
    context.each(TOTAL, 200, get_or_post).await?;
    context.counted_once(TOTAL)?;
    let bodies = context.each(40, 40, |context, number| async move {
        upload_one(&context, number).await?;
        download_one(&context).await
    });
    bodies.await?;
    Ok(NOTHING)
}

/// A GET, and a POST which must be answered.
async fn get_or_post<C: Client>(context: Context<C>, number: usize) -> Result<(), Failure> {
    context.get_small().await?;
    Ok(context.post_count(number).await??)
}
