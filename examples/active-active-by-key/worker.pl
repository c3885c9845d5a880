#!/usr/bin/perl
# A worker of a service whose work is divided, behind a door by key. It counts visits per shop; each shop
# belongs to one partition, so that one worker alone counts them, whatever door a visitor came through.
#
# 1. Serve a request only if its Tandem-Partition is "owned" here now, under its Tandem-Epoch or a later one, and
#    its Tandem-Epoch is greater than "before": a door that sends a smaller one has not heard that the service was
#    taken out and put back, perhaps with another key.
# 2. Else do nothing at all and answer 421: the door finds who owns it.
# 3. What is "releasing" was asked back: serve nothing more of it, then say that it is released. Here one
#    request is served after the other, so nothing of it is under way when that is said.
# 4. An answer of the API with a smaller version is older: ignore it. Without an answer, go on.

use strict;
use warnings;
use IO::Select;
use IO::Socket::INET;

my ($node, $service) = @ENV{qw(TANDEM_NODE TANDEM_SERVICE)};
my ($api) = $ENV{TANDEM_API} =~ m{^http://(.*)};
my $door = IO::Socket::INET->new(LocalAddr => $ENV{TANDEM_BIND}, LocalPort => $ENV{TANDEM_PORT},
    Listen => 64, ReuseAddr => 1) or die "cannot listen: $@";
my $select = IO::Select->new($door);
my (%owned, %visits, %unread); # epochs by partition; counts by partition and shop; bytes by connection
my ($version, $before, $news) = (0, 0, undef);
$SIG{PIPE} = 'IGNORE';

# Sends one request to the API of this node; its connection, or nothing while the daemon is away.
sub ask {
    my ($method, $path, $body) = @_;
    my $to = IO::Socket::INET->new(PeerAddr => $api, Timeout => 2) or return;
    printf $to "%s /v1/services/%s/partitions%s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n"
        . "Content-Length: %d\r\n\r\n%s", $method, $service, $path, $api, length $body, $body;
    $to->flush;
    return $to;
}

# Waits for news beside everything else: the answer comes when something has changed, or after 30 s.
sub listen_to_news {
    $news = ask('GET', "?after=$version&wait=30s", '') or return;
    $select->add($news);
}

sub hear {
    my $told = do { local $/; <$news> } // '';
    $select->remove($news);
    $news = undef;
    my ($newer) = $told =~ /"version":(\d+)/;
    # The daemon is away, or does not know yet.
    if (!defined $newer) { select undef, undef, undef, 0.1; return }
    return if $newer <= $version;
    $version = $newer;
    ($before) = $told =~ /"before":(\d+)/;
    $before //= 0; # an older release does not say it
    my (%now, %asked_back);
    while ($told =~ /"id":(\d+),"epoch":(\d+),"state":"(\w+)"/g) {
        if ($3 eq 'owned') { $now{$1} = $2 } else { $asked_back{$1} = $2 }
    }
    # Somebody else may have counted since: what is not ours is forgotten.
    for my $id (keys %visits) { delete $visits{$id} unless defined $now{$id} }
    %owned = %now;
    for my $id (keys %asked_back) {
        my $answer = ask('POST', "/$id/release", "{\"epoch\":$asked_back{$id}}") or next;
        my @lines = <$answer>;
    }
}

# One request; what is answered.
sub serve {
    my ($head) = @_;
    my ($id) = $head =~ /^Tandem-Partition: (\d+)\r$/mi;
    my ($epoch) = $head =~ /^Tandem-Epoch: (\d+)\r$/mi;
    my ($shop) = $head =~ m{^\S+ /([^/ ?]+)};
    return (400, "no shop\n") unless defined $id && defined $epoch && defined $shop;
    return (421, '') unless defined $owned{$id} && $before < $epoch && $epoch <= $owned{$id};
    my $visit = ++$visits{$id}{$shop};
    return (200, "$shop: visit $visit, counted by $node as partition $id of epoch $owned{$id}\n");
}

while (1) {
    listen_to_news() unless $news;
    for my $from ($select->can_read(0.5)) {
        if ($from == $door) { my $client = $door->accept; $select->add($client) if $client; next }
        if ($news && $from == $news) { hear(); next }
        if (!sysread $from, $unread{$from}, 16384, length($unread{$from} // '')) {
            $select->remove($from);
            delete $unread{$from};
            close $from;
            next;
        }
        # Visits have no bodies.
        while ($unread{$from} =~ s/^(.*?\r\n)\r\n//s) {
            my ($status, $body) = serve($1);
            syswrite $from, "HTTP/1.1 $status -\r\nContent-Length: " . length($body) . "\r\n\r\n$body";
        }
    }
}
