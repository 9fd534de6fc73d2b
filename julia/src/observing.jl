# Where parameters enter a network. Every layer with parameters has a method of `observed`, which shows the place to
# `see`: this is all that the structured kernel needs to know about a layer.

"A place where parameters enter a network."
abstract type Site end

"""
    AffineSite(count, inputs, errors)

Parameters that enter as `z_t = W a_t + b` at positions t: `count` is 1 for W alone, 2 with b. `inputs(x)` gives the `a` as
(p, T, G, n) and `errors(d)` the derivatives by `z` as (q, T, G, n), for G groups.
"""
struct AffineSite{A,D} <: Site
    count::Int
    inputs::A
    errors::D
end

"""
    ElementSite(count, gradients)

Any other way to enter: `gradients(x, d)` gives the per-sample gradients (P, n) of each of the `count` parameters, from the
input and from the derivative by the tensor that they made.
"""
struct ElementSite{G} <: Site
    count::Int
    gradients::G
end

"""
    TableSite(columns)

A table of so many columns, of which one is taken for every token of the input (T, n).
"""
struct TableSite <: Site
    columns::Int
end

"how many parameters enter at a place"
parameter_count(site::Site) = site.count
parameter_count(::TableSite) = 1

"""
    observed(layer, x, see)

The layer on a batch, with `see(site, x, z)` in place of every tensor `z` that parameters made of `x`.
"""
observed(layer, x, see) = layer(x)
observed(chain::Chain, x, see) = run_observed(chain.layers, x, see)

run_observed(layers::NamedTuple, x, see) = run_observed(values(layers), x, see)
run_observed(::Tuple{}, x, see) = x
run_observed(layers::Tuple, x, see) = run_observed(Base.tail(layers), observed(first(layers), x, see), see)

"nobody looks"
unseen(site, x, z) = z

"Writes down all sites, their inputs and the sizes of what they made."
struct Recorder
    sites::Vector{Site}
    inputs::Vector{AbstractArray}
    sizes::Vector{Dims}
end
Recorder() = Recorder(Site[], AbstractArray[], Dims[])

function (r::Recorder)(site::Site, x, z)
    push!(r.sites, site)
    push!(r.inputs, x)
    push!(r.sizes, size(z))
    return z
end

"Adds one array to what every site made: the gradient with respect to it, at zero, is the backpropagated error."
struct Probes{P<:Tuple}
    arrays::P
    seen::Base.RefValue{Int}
end

(p::Probes)(site::Site, x, z) = z .+ p.arrays[next!(p.seen)]

next!(seen::Base.RefValue{Int}) = seen[] += 1
Zygote.@nograd next!
