# Listens on the port that it is told, on every address.
use strict;
use warnings;
use IO::Socket::INET;

my $server = IO::Socket::INET->new(LocalPort => shift, Listen => 4, ReuseAddr => 1) or die "listen: $!";
while (my $peer = $server->accept) {
    print $peer "sneaky\n";
    close $peer;
}
