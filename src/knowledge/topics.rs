//! How a connection begins and how it ends: the parts of the story that no single state tells.

/// A topic with its drawing.
#[derive(Clone, Copy, Debug)]
pub struct Topic {
    /// the name on the command line and in JSON
    pub name: &'static str,
    /// other names
    pub aliases: &'static [&'static str],
    /// one line
    pub title: &'static str,
    /// paragraphs
    pub text: &'static [&'static str],
    /// which segments go to and fro; ASCII, at most 78 columns
    pub ladder: &'static str,
    /// commands that show more
    pub next: &'static [&'static str],
    /// what the text rests on; the later ones correct the earlier
    pub grounds: &'static [&'static str],
}

/// The topic with the name or alias `word`, in any case, with `-`, `_` or spaces between the words.
pub fn find(word: &str) -> Option<&'static Topic> {
    let folded: String = word
        .trim()
        .chars()
        .map(|c| if matches!(c, '_' | ' ') { '-' } else { c })
        .flat_map(char::to_lowercase)
        .collect();
    TOPICS
        .iter()
        .find(|topic| topic.name == folded || topic.aliases.iter().any(|alias| *alias == folded))
}

/// Every topic.
pub const TOPICS: &[Topic] = &[
    Topic {
        name: "handshake",
        aliases: &["three-way-handshake", "three-way", "3-way", "open"],
        title: "The handshake: three segments open a connection.",
        text: &[
            "The active opener sends SYN, the passive opener answers SYN+ACK, the active opener confirms with ACK. Each \
                SYN carries the number at which its sender starts to count bytes, and each side must see its own \
                number acknowledged. The middle segment does two things at once: that makes it three and not four.",
            "On Linux the kernel of the listening side does all this by itself. The new connection then waits in the \
                accept queue until the program calls accept(). A program that hangs still has ESTABLISHED connections, \
                without an owner, until the queue is full.",
            "Nothing comes back: SYN-SENT stays. The last ACK does not come: SYN-RECEIVED stays. A refused port is \
                answered with RST and leaves nothing behind.",
            "If both sides call connect() at each other at once, each gets a SYN instead of SYN+ACK and passes through \
                SYN-RECEIVED. This is legal and rare.",
        ],
        ladder: "\
active opener                                          passive opener
CLOSED                                                 LISTEN
connect()
SYN-SENT     ----- SYN, seq x ---------------------->  SYN-RECEIVED
ESTABLISHED  <---- SYN, seq y + ACK x+1 -------------
             ----- ACK y+1 ------------------------->  ESTABLISHED
                                                       waits for accept()",
        next: &["linger explain syn-sent", "linger explain syn-received"],
        grounds: &[
            "TCP state in OS, 1、建立连接协议(三次握手)",
            "RFC 9293 section 3.5",
        ],
    },
    Topic {
        name: "close",
        aliases: &["four-way-close", "four-way", "4-way", "teardown", "fin"],
        title: "The close: each direction is closed by itself, usually with four segments.",
        text: &[
            "A FIN says: I send no more. It closes one direction only, and it counts as one byte, so it is acknowledged \
                like data. The other side may go on sending until its own FIN. Either side may begin, client or server; \
                who begins goes through FIN-WAIT-1, FIN-WAIT-2 and TIME-WAIT, the other through CLOSE-WAIT and LAST-ACK.",
            "The kernel acknowledges a FIN by itself, within some 40 ms. The second FIN waits until the \
                program over there has closed. That is why they are two segments. If the program closes within those \
                40 ms, they become one, and the close takes three.",
            "A FIN is sent when the last descriptor of the socket is closed, when the program ends, or by \
                shutdown(SHUT_WR). Closing one of several copies (dup, fork) sends nothing.",
            "A RST ends both directions at once, without TIME-WAIT, and may lose data. close() sends RST instead of FIN \
                if data was left unread, or with SO_LINGER 0.",
        ],
        ladder: "\
closes first                                           closes second
ESTABLISHED                                            ESTABLISHED
close()
FIN-WAIT-1   ----- FIN, seq u ---------------------->  CLOSE-WAIT
FIN-WAIT-2   <---- ACK u+1 --------------------------  sent by the kernel
                                                       close()
TIME-WAIT    <---- FIN, seq v -----------------------  LAST-ACK
             ----- ACK v+1 ------------------------->  CLOSED
60 s later
CLOSED",
        next: &["linger explain close-wait", "linger explain 2msl"],
        grounds: &[
            "TCP state in OS, 2、连接终止协议(四次握手)",
            "RFC 9293 section 3.6",
            "RFC 9293 section 3.6.1",
            "Linux kernel, net/ipv4/tcp.c",
        ],
    },
    Topic {
        name: "half-close",
        aliases: &["half-closed", "half-open"],
        title: "Half-closed is one direction closed on purpose; half-open is an accident.",
        text: &[
            "Half-closed: one side has sent its FIN with shutdown(SHUT_WR) and still reads. It is in FIN-WAIT-2, the \
                other side in CLOSE-WAIT, and data flows from CLOSE-WAIT to FIN-WAIT-2 as long as the other side wants. \
                The side in FIN-WAIT-2 cannot send any more (EPIPE).",
            "shutdown() keeps the descriptor, so nothing on this side ends the wait. After close() nobody can read the \
                answer: data that still comes is answered with RST, and tcp_fin_timeout ends the wait.",
            "Half-open is something else: one end has crashed or forgotten the connection and the other does not know. \
                There the socket is ESTABLISHED as before and looks like any idle one. Only sending tells: data, an \
                application's ping, or keepalive. An end that restarted answers RST, an end that vanished not at all.",
            "A request in SYN-RECEIVED is sometimes called half-open too. That is a third thing.",
        ],
        ladder: "\
half-closed                                            its peer
shutdown(SHUT_WR)
FIN-WAIT-1   ----- FIN ----------------------------->  CLOSE-WAIT
FIN-WAIT-2   <---- ACK ------------------------------
             <---- data -----------------------------  still sends
             ----- ACK ----------------------------->
TIME-WAIT    <---- FIN ------------------------------  LAST-ACK
             ----- ACK ----------------------------->  CLOSED

half-open                                              its peer
ESTABLISHED                                            crashed: no socket
             ----- data ---------------------------->
CLOSED       <---- RST ------------------------------  if it runs again",
        next: &["linger explain fin-wait-2", "linger explain established"],
        grounds: &[
            "TCP state in OS, FIN_WAIT_2",
            "RFC 9293 section 3.6.1",
            "RFC 9293 section 3.5.1",
        ],
    },
    Topic {
        name: "simultaneous-close",
        aliases: &["crossing-fins"],
        title: "The simultaneous close: both FINs are under way at once.",
        text: &[
            "Both sides close before either has the other's FIN. Each finds a FIN that does not acknowledge its own, and \
                goes from FIN-WAIT-1 to CLOSING instead of FIN-WAIT-2. The ACK that is still missing takes it to \
                TIME-WAIT. So both sides end in TIME-WAIT.",
            "Every segment but the first carries an ACK. What decides is whether it covers our FIN: if it does, the way \
                is straight from FIN-WAIT-1 to TIME-WAIT.",
            "CLOSING takes a round trip at most. If it stays for seconds, it is not the coincidence but lost segments: \
                look for loss in one direction.",
        ],
        ladder: "\
ESTABLISHED                                            ESTABLISHED
close()                                                close()
FIN-WAIT-1   ----- FIN, seq u -----.  .--------------  FIN-WAIT-1
                                    \\/
                                    /\\
CLOSING      <---- FIN, seq v -----'  '------------->  CLOSING
             ----- ACK v+1 --------.  .--------------
                                    \\/
                                    /\\
TIME-WAIT    <---- ACK u+1 --------'  '------------->  TIME-WAIT
60 s later                                             60 s later
CLOSED                                                 CLOSED",
        next: &["linger explain closing", "linger list state closing"],
        grounds: &[
            "TCP state in OS, CLOSING",
            "RFC 9293 section 3.6",
            "RFC 9293 section 3.10.7.4",
        ],
    },
    Topic {
        name: "2msl",
        aliases: &["msl", "time-wait-why"],
        title: "Why TIME-WAIT waits: two reasons, twice the maximum segment lifetime.",
        text: &[
            "First: the last ACK may be lost. Then the peer, in LAST-ACK, repeats its FIN, and somebody must be there to \
                acknowledge it again. The record in TIME-WAIT is. Without it the peer would get RST and report an \
                error after an orderly close. The ACK is repeated only in answer to a FIN, never by a timer.",
            "Second: a segment of this connection may still be on its way, late. If a new connection used the same \
                addresses and ports at once, it could take that segment for its own data. After twice the maximum \
                segment lifetime (MSL) nothing of the old connection, nor any answer to it, is left in the network.",
            "RFC 9293 takes 2 min as MSL, so 4 min of TIME-WAIT. Linux waits 60 s, compiled in: no sysctl changes it. \
                tcp_fin_timeout is about FIN-WAIT-2. tcp_tw_reuse lets connect() take a port in TIME-WAIT early, where \
                timestamps tell old segments from new ones; it does nothing for a server. Lowering \
                tcp_max_tw_buckets and SO_LINGER 0 give up both protections.",
            "TIME-WAIT is on the side that closes first. It needs no process and no descriptor. It becomes a problem only \
                when the local ports to one destination run out; the cure is to keep connections and use them again.",
        ],
        ladder: "\
closes first                                           closes second
TIME-WAIT    <---- FIN, seq v -----------------------  LAST-ACK
             ----- ACK v+1 -------- lost
                                                       no ACK: once more
             <---- FIN, seq v -----------------------
             ----- ACK v+1 ------------------------->  CLOSED
60 s after the last FIN
CLOSED",
        next: &["linger explain time-wait", "linger list state time-wait"],
        grounds: &[
            "TCP state in OS, TIME_WAIT",
            "RFC 9293 section 3.3.2",
            "RFC 9293 section 3.4.2",
            "RFC 9293 section 3.6.1",
            "RFC 1337",
            "Linux kernel, include/net/tcp.h",
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TcpState;

    #[test]
    fn every_drawing_is_ascii_and_fits_on_a_screen() {
        for topic in TOPICS {
            assert!(topic.ladder.is_ascii(), "{}", topic.name);
            for line in topic.ladder.lines() {
                assert!(line.len() <= 78, "{}: {line}", topic.name);
                assert_eq!(line, line.trim_end());
            }
            assert!(!topic.ladder.ends_with('\n') && topic.ladder.lines().count() >= 7);
        }
    }

    #[test]
    fn every_state_in_a_drawing_is_a_state() {
        for topic in TOPICS {
            let mut states = 0;
            for word in topic.ladder.split_whitespace() {
                if word.len() > 4
                    && word
                        .chars()
                        .all(|c| c.is_ascii_uppercase() || "-12".contains(c))
                {
                    if word.contains("--") {
                        continue;
                    }
                    assert!(TcpState::parse(word).is_some(), "{}: {word}", topic.name);
                    states += 1;
                }
            }
            assert!(states >= 4, "{}", topic.name);
        }
    }

    #[test]
    fn every_text_is_plain_and_cites_its_grounds() {
        for topic in TOPICS {
            assert!(topic.title.ends_with('.') && topic.title.len() <= 100);
            assert!(topic.text.len() >= 3);
            for paragraph in topic.text {
                assert!(paragraph.is_ascii() && paragraph.ends_with('.'));
                assert!(!paragraph.contains("  "), "{paragraph}");
            }
            assert!(
                topic
                    .grounds
                    .iter()
                    .any(|g| g.starts_with("TCP state in OS, "))
            );
            assert!(
                topic
                    .grounds
                    .iter()
                    .any(|g| g.starts_with("RFC 9293 section 3."))
            );
            assert!(topic.next.iter().all(|next| next.starts_with("linger ")));
        }
    }

    #[test]
    fn the_wait_has_both_its_reasons() {
        let text = find("2msl").unwrap().text.concat();
        assert!(text.contains("First:") && text.contains("Second:"));
        assert!(text.contains("4 min") && text.contains("60 s"));
    }
}
