# Functions of one entry, and broadcasts: a function is called with a number that stands for every entry of an array.

"numbers that models write"
const KnownNumber = Union{AbstractFloat,Integer,Rational,AbstractIrrational}

"""
    TracedNumber(value)

A number in a broadcast: the entries of a [`Traced`](@ref) array, or a number that is known. Functions that compute with it write operations
down; what asks whether it is positive cannot be traced, but by `ifelse`.
"""
struct TracedNumber <: Real
    value::Union{Traced,Real}
    TracedNumber(value::Union{Traced,KnownNumber}) = new(value)
end

Base.promote_rule(::Type{TracedNumber}, ::Type{<:KnownNumber}) = TracedNumber
Base.convert(::Type{TracedNumber}, x::KnownNumber) = TracedNumber(x)
Base.zero(::Type{TracedNumber}) = TracedNumber(0)
Base.one(::Type{TracedNumber}) = TracedNumber(1)
Base.zero(::TracedNumber) = TracedNumber(0)
Base.one(::TracedNumber) = TracedNumber(1)
Base.float(x::TracedNumber) = x
(::Type{T})(x::TracedNumber) where {T<:AbstractFloat} = x

struct TracedStyle <: Base.BroadcastStyle end
Base.BroadcastStyle(::Type{<:Traced}) = TracedStyle()
Base.BroadcastStyle(style::TracedStyle, ::Base.BroadcastStyle) = style
Base.BroadcastStyle(style::TracedStyle, ::Base.Broadcast.Unknown) = style
Base.BroadcastStyle(style::TracedStyle, ::Base.Broadcast.AbstractArrayStyle) = style
Base.BroadcastStyle(style::TracedStyle, ::Base.Broadcast.DefaultArrayStyle) = style
Base.copy(bc::Base.Broadcast.Broadcasted{TracedStyle}) = everywhere(bc.f, Any[map(entry, bc.args)...])
Base.copyto!(::AbstractArray, ::Base.Broadcast.Broadcasted{TracedStyle}) = throw(Untraceable("it writes into an array"))

"an argument of a broadcast"
entry(bc::Base.Broadcast.Broadcasted) = any(is_traced, bc.args) ? everywhere(bc.f, Any[map(entry, bc.args)...]) : copy(bc)
entry(x::Base.RefValue) = x[]
entry(x) = x

is_traced(x::Traced) = true
is_traced(bc::Base.Broadcast.Broadcasted) = any(is_traced, bc.args)
is_traced(x) = false

Base.map(f, x::Traced, xs::Traced...) = f.(x, xs...)

"`f` of every entry of arrays that broadcast"
function everywhere(@nospecialize(f), args::Vector{Any})
    arrays = filter(x -> x isa AbstractArray, args)
    trace = first(x for x in args if x isa Traced).trace
    y = f(map(x -> x isa Traced ? TracedNumber(x) : x isa AbstractArray ? TracedNumber(lift(trace, x)) : x, args)...)
    y isa TracedNumber || throw(Untraceable("$f gives a $(typeof(y)) for each entry, which does not depend on the samples or is no number"))
    y.value isa Traced || throw(Untraceable("$f gives a number that does not depend on the entries"))
    dims = Base.Broadcast.broadcast_shape(map(size, arrays)...)
    size(y.value) == dims && return y.value
    # `f` has not used the largest of its arguments.
    whole = y.value.batched || any(x -> x isa Traced && x.batched, arrays)
    return emit(trace, "expand", (y.value,), eltype(y.value), dims, whole; shape=extents_of(trace, dims, whole))
end

"one operation on every entry of one array"
entrywise(op::String, x::TracedNumber; attributes...) = TracedNumber(emit(op, as_numbers(x.value); attributes...))

"one operation on the entries of two arrays, which broadcast"
function of_two(op::String, x::TracedNumber, y::TracedNumber; result=nothing, attributes...)
    a, b = lifted(x.value, y.value)
    result === Bool || ((a, b) = (as_numbers(a), as_numbers(b)))
    ndims(a) == ndims(b) > 0 && foreach((x, other) -> other.batched && check_constant(x, last(size(other))), (a, b), (b, a))
    dims = Base.Broadcast.broadcast_shape(a.size, b.size)
    return TracedNumber(emit(a.trace, op, (a, b), something(result, eltype(a)), dims, a.batched || b.batched; attributes...))
end

lifted(a::Traced, b) = (a, lift(a.trace, b))
lifted(a, b::Traced) = (lift(b.trace, a), b)
lifted(a::Traced, b::Traced) = (a, b)

known_number(x::TracedNumber) = x.value isa Real

for (f, op) in ((:+, "add"), (:-, "subtract"), (:*, "multiply"), (:/, "divide"), (:max, "maximum"), (:min, "minimum"))
    @eval function Base.$f(x::TracedNumber, y::TracedNumber)
        known_number(x) && known_number(y) && return TracedNumber($f(x.value, y.value))
        return of_two($op, x, y)
    end
end
for (f, relation) in ((:<, "less"), (:<=, "less_equal"), (:(==), "equal"))
    @eval function Base.$f(x::TracedNumber, y::TracedNumber)
        known_number(x) && known_number(y) && return $f(x.value, y.value)
        return of_two("compare", x, y; result=Bool, relation=$relation)
    end
end
Base.isless(x::TracedNumber, y::TracedNumber) = x < y
Base.:!(x::TracedNumber) = TracedNumber(emit("logical", x.value; :function => "not"))
Base.:&(x::TracedNumber, y::TracedNumber) = of_two("logical", x, y; result=Bool, :function => "and")
Base.:|(x::TracedNumber, y::TracedNumber) = of_two("logical", x, y; result=Bool, :function => "or")

function Base.:^(x::TracedNumber, y::TracedNumber)
    known_number(y) && return known_number(x) ? TracedNumber(x.value^y.value) : entrywise("power", x; exponent=number(y.value))
    return exp(y * log(x))
end
Base.:^(x::TracedNumber, k::Integer) = k == 2 ? x * x : x^TracedNumber(k)
Base.literal_pow(::typeof(^), x::TracedNumber, ::Val{k}) where {k} = x^k

Base.ifelse(holds::TracedNumber, x::Real, y::Real) = chosen_entries(holds.value, x, y)
Base.ifelse(holds::TracedNumber, x::TracedNumber, y::TracedNumber) = chosen_entries(holds.value, x, y)
function chosen_entries(holds::Traced{Bool}, x, y)
    a, b = map(z -> as_numbers(lift(holds.trace, z isa TracedNumber ? z.value : z)), (x, y))
    dims = Base.Broadcast.broadcast_shape(holds.size, a.size, b.size)
    return TracedNumber(emit(holds.trace, "where", (holds, a, b), eltype(a), dims, holds.batched || a.batched || b.batched))
end

Base.:-(x::TracedNumber) = known_number(x) ? TracedNumber(-x.value) : entrywise("negative", x)
Base.:+(x::TracedNumber) = x
Base.inv(x::TracedNumber) = 1 / x
Base.abs2(x::TracedNumber) = x * x
Base.muladd(x::TracedNumber, y::TracedNumber, z::TracedNumber) = x * y + z
Base.clamp(x::TracedNumber, low::Real, high::Real) = entrywise("clamp", x; low=number(low), high=number(high))
Base.tan(x::TracedNumber) = sin(x) / cos(x)
Base.sinh(x::TracedNumber) = (exp(x) - exp(-x)) / 2
Base.cosh(x::TracedNumber) = (exp(x) + exp(-x)) / 2
Base.exp2(x::TracedNumber) = exp(log(2) * x)
Base.log2(x::TracedNumber) = log(x) / log(2)
Base.log10(x::TracedNumber) = log(x) / log(10)

for (f, op) in (:abs => "absolute", :exp => "exp", :log => "log", :sqrt => "sqrt", :sin => "sin", :cos => "cos", :tanh => "tanh")
    @eval Base.$f(x::TracedNumber) = known_number(x) ? TracedNumber($f(x.value)) : entrywise($op, x)
end
SpecialFunctions.erf(x::TracedNumber) = entrywise("erf", x)

for (f, op) in (:relu => "relu", :selu => "selu", :swish => "silu", :mish => "mish", :softsign => "softsign", :logsigmoid => "logsigmoid",
    :sigmoid => "sigmoid", :sigmoid_fast => "sigmoid", :tanh_fast => "tanh", :hardsigmoid => "hardsigmoid", :hardswish => "hardswish")
    @eval NNlib.$f(x::TracedNumber) = entrywise($op, x)
end
NNlib.gelu_tanh(x::TracedNumber) = entrywise("gelu", x; form="tanh")
NNlib.gelu_erf(x::TracedNumber) = entrywise("gelu", x; form="erf")
NNlib.softplus(x::TracedNumber) = entrywise("softplus", x; beta=1.0, threshold=number(Inf))
NNlib.relu6(x::TracedNumber) = entrywise("hardtanh", x; low=0.0, high=6.0)
NNlib.hardtanh(x::TracedNumber) = entrywise("hardtanh", x; low=-1.0, high=1.0)
NNlib.leakyrelu(x::TracedNumber, slope::Real=0.01) = entrywise("leaky_relu", x; slope=number(slope))
NNlib.elu(x::TracedNumber, alpha::Real=1) = entrywise("elu", x; alpha=number(alpha), scale=1.0)
NNlib.celu(x::TracedNumber, alpha::Real=1) = entrywise("elu", x; alpha=number(alpha), scale=number(alpha))
