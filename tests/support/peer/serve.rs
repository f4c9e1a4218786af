//! The parts of a well-behaved server, for scripts in which only one thing is wrong.

use std::io;

use bytes::BytesMut;

use super::{Frame, Headers, Peer, frame, hpack};

/// A request that was read to its end.
#[derive(Debug)]
pub struct Exchange {
    pub head: Headers,
    pub body: BytesMut,
    pub trailers: Option<Headers>,
}

impl Peer {
    /// Reads one whole request, giving back its credit; frames of other streams fail the test.
    pub async fn next_request(&mut self) -> Exchange {
        let head = self.next_headers().await;
        let mut exchange = Exchange {
            body: BytesMut::new(),
            trailers: None,
            head,
        };
        let stream = exchange.head.stream;
        let mut ended = exchange.head.end;
        while !ended {
            match self.next_stream_frame().await {
                Frame::Data(data) if data.stream == stream => {
                    exchange.body.extend_from_slice(&data.data);
                    ended = data.end;
                    self.credit(stream, data.flow).await.unwrap();
                }
                Frame::Headers(trailers) if trailers.stream == stream => {
                    ended = trailers.end;
                    exchange.trailers = Some(trailers);
                }
                other => panic!("within the request on stream {stream}: {other:?}"),
            }
        }
        exchange
    }

    /// Answers every request with 200 and `body` until the client closes, and returns the paths in the order of the
    /// answers. For runs that the test ends itself, [`answer_one`](Self::answer_one) in a loop.
    pub async fn serve(&mut self, body: &[u8]) -> Vec<String> {
        let mut paths = Vec::new();
        while let Some(path) = self.answer_one(body).await {
            paths.push(path);
        }
        paths
    }

    /// Answers the request that is complete next, and returns its path; `None` once the client has closed.
    pub async fn answer_one(&mut self, body: &[u8]) -> Option<String> {
        let (stream, path) = self.next_complete().await?;
        let mut answer = BytesMut::from(&*frame::headers(
            stream,
            &hpack::literals([(":status", "200")]),
            false,
        ));
        answer.extend_from_slice(&frame::data(stream, body, true));
        self.try_send_raw(&answer).await.ok()?;
        Some(path)
    }

    /// The stream and path of the request that is complete next, its body thrown away. Cancel-safe but for the credit
    /// that it gives back.
    pub async fn next_complete(&mut self) -> Option<(u32, String)> {
        loop {
            let (stream, ended) = match self.recv().await.ok()?? {
                Frame::Headers(head) => {
                    // Trailers find the head of their stream there already.
                    self.incomplete
                        .entry(head.stream)
                        .or_insert_with(|| head.path().to_owned());
                    (head.stream, head.end)
                }
                Frame::Data(data) => {
                    self.credit(data.stream, data.flow).await.ok()?;
                    (data.stream, data.end)
                }
                Frame::Reset { stream, .. } => {
                    self.incomplete.remove(&stream);
                    continue;
                }
                _ => continue,
            };
            if !ended {
                continue;
            }
            if let Some(path) = self.incomplete.remove(&stream) {
                return Some((stream, path));
            }
        }
    }

    /// The head of an HTTP/1.1 request, or `None` once the client has closed: for a peer that is none of HTTP/2.
    pub async fn next_h1_head(&mut self) -> Option<String> {
        loop {
            let end = self.unread.windows(4).position(|bytes| bytes == b"\r\n\r\n");
            if let Some(end) = end {
                let head = self.unread.split_to(end + 4);
                return Some(String::from_utf8_lossy(&head).into_owned());
            }
            if !self.fill().await.ok()? {
                return None;
            }
        }
    }

    /// Gives back what a DATA frame cost, on the stream and on the connection.
    ///
    /// # Errors
    /// Whatever the byte stream says.
    pub async fn credit(&mut self, stream: u32, flow: usize) -> io::Result<()> {
        let increment = u32::try_from(flow).unwrap();
        if increment == 0 {
            return Ok(());
        }
        self.try_send_raw(&frame::window_update(stream, increment))
            .await?;
        self.try_send_raw(&frame::window_update(0, increment)).await
    }
}
