# One Folkmoot process for SyTest: writes its configuration, wipes its data, starts it.
use strict;
use warnings;

package SyTest::Homeserver::Folkmoot;
use base qw( SyTest::Homeserver );

use File::Path qw( make_path remove_tree );
use JSON ();

use SyTest::SSL qw( ensure_ssl_key create_ssl_cert );

sub _init
{
   my ( $self, $args ) = @_;
   $self->{$_} = delete $args->{$_} for qw( command print_output );
   $self->SUPER::_init( $args );
   $self->{port} = main::alloc_port( "folkmoot[$self->{hs_index}]" );
}

# One TLS port answers for everything, so every address is the same address.
sub server_name     { my $self = shift; return "$self->{bind_host}:$self->{port}" }
sub federation_host { my $self = shift; return $self->{bind_host} }
sub federation_port { my $self = shift; return $self->{port} }
sub public_baseurl  { my $self = shift; return "https://" . $self->server_name }

# The suite starts its servers from nothing, and is far faster than any limit meant for people allows.
sub _settings
{
   my $self = shift;
   my $dir  = $self->{hs_dir};

   my %no_limit = map { $_ => undef } qw(
      rc_message rc_registration rc_registration_token_validity rc_login rc_joins rc_invites
      rc_room_creation rc_key_requests rc_federation rc_registration_available rc_user_directory
   );
   return {
      %no_limit,
      server_name          => $self->server_name,
      public_baseurl       => $self->public_baseurl . "/",
      data_dir             => "$dir/data",
      tls_certificate_path => "$dir/tls.crt",
      tls_private_key_path => "$dir/tls.key",
      listeners            => [ {
         port           => 0 + $self->{port},
         bind_addresses => [ $self->{bind_host} eq "localhost" ? "127.0.0.1" : $self->{bind_host} ],
         tls            => JSON::true,
      } ],
      enable_registration                      => JSON::true,
      enable_registration_without_verification => JSON::true,
      registration_shared_secret               => "reg_secret",
      allow_guest_access                       => JSON::true,
      allow_public_rooms_without_auth          => JSON::true,
      compatibility                            => { access_token_in_query => JSON::true },

      # Its other servers are itself, on this machine.
      federation_verify_certificates      => JSON::false,
      federation_ip_range_blacklist       => [],
      trusted_key_servers                 => [],
      allow_public_rooms_over_federation  => JSON::true,
      allow_device_name_lookup_over_federation => JSON::true,
   };
}

sub start
{
   my $self = shift;
   my $dir  = $self->{hs_dir};

   remove_tree( "$dir/data" );
   make_path( "$dir/data" );
   ensure_ssl_key( "$dir/tls.key" );
   create_ssl_cert( "$dir/tls.crt", "$dir/tls.key", $self->{bind_host} );

   my $config = $self->write_yaml_file( "folkmoot.yaml" => $self->_settings );
   $self->{output}->diag( "Starting $self->{command} on port $self->{port}" );

   return $self->_start_process_and_await_notify(
      name    => "folkmoot-$self->{hs_index}",
      command => [ "sh", "-c", 'exec "$0" run --config "$1" >>"$2" 2>&1', $self->{command}, $config, "$dir/server.log" ],
      setup   => [ env => { PATH => $ENV{PATH}, HOME => $ENV{HOME} // "/" } ],
   );
}

1;
