# Tells SyTest that "-I Folkmoot" exists and which command starts it.
use strict;
use warnings;

require SyTest::Homeserver::Folkmoot;

package SyTest::HomeserverFactory::Folkmoot;
use base qw( SyTest::HomeserverFactory );

sub _init
{
   my ( $self, @rest ) = @_;
   $self->{args} = { command => $ENV{FOLKMOOT} // "folkmoot", print_output => 0 };
   $self->SUPER::_init( @rest );
}

sub implementation_name { return "folkmoot" }

sub get_options
{
   my $self = shift;
   return (
      'folkmoot=s'    => \$self->{args}{command},
      'S|server-log+' => \$self->{args}{print_output},
      $self->SUPER::get_options(),
   );
}

sub print_usage
{
   print STDERR "       --folkmoot PATH          - the 'folkmoot' command (default: \$FOLKMOOT, then \$PATH)\n";
}

sub create_server
{
   my ( $self, @given ) = @_;
   return SyTest::Homeserver::Folkmoot->new( @given, %{ $self->{args} } );
}

1;
